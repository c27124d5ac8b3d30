"""Runs tests of the runtime as a 64-bit ARM machine would: Debian's Python and that architecture's wheels, emulated.

python tools/arm64/run.py                     the selection below
python tools/arm64/run.py tests/devices -x    what pytest is to be told instead

Needs apt (Debian or its like), user namespaces and Linux 6.7, since which each user namespace has interpreters of its
own for foreign programs (Documentation/admin-guide/binfmt-misc.rst): nothing is registered, mounted or installed on
the machine itself, and all ends with the process. What was downloaded stays in `.cache/arm64`. Packages and wheels
come from wherever apt and uv are configured to take them.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = REPOSITORY / ".cache" / "arm64"
LOCK = REPOSITORY / "requirements" / "dev.lock"

# About a quarter of an hour on two cores, and one minute more the first time: an emulated CPU is five to ten times
# slower.
SELECTION = (
    "tests/devices",
    "tests/memory/test_accounting.py",
    "tests/memory/test_arena.py",
    "tests/memory/test_lifetimes.py",
    "tests/memory/test_mapped.py",
    "tests/memory/test_microbatches.py",
    "tests/memory/test_outputs.py",
    "tests/memory/test_placing.py",
    "tests/memory/test_planner.py",
    "tests/memory/test_pool_locked.py",
    "tests/memory/test_pool_objects.py",
    "tests/memory/test_pool_segments.py",
    "tests/memory/test_properties.py",
    "tests/memory/test_tiers.py",
    "tests/memory/test_trimming.py",
    "tests/runtime/test_cpu.py",
    "tests/runtime/test_memory.py",
    "tests/runtime/test_config.py",
    "tests/runtime/test_library.py",
    "tests/runtime/test_protocol.py",
    "tests/runtime/test_tensors.py",
    "tests/optimizer/test_instructions.py",
)

PYTHON = "python3.11"
ROOT_PACKAGES = (PYTHON, "libstdc++6", "libgomp1", "dash", "coreutils")
EXTRA = "optimize"
WHEELS = ("ml-dtypes", "psutil", "hypothesis", "pytest", "pytest-asyncio", "pytest-timeout")
PLATFORM = "aarch64-manylinux_2_36"

# The first bytes of a program for this architecture, and which of them count (elf(5): e_ident, e_type, e_machine).
_MAGIC = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
_MASK = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"

# As root of namespaces of its own; $1: the new root, $2: the repository, $3: the interpreter, then the command.
_ENTER = rf"""
root=$1 repository=$2 interpreter=$3; shift 3
mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
printf '%s' ':openclaw-arm64:M::{_MAGIC}:{_MASK}:'"$interpreter:F" > /proc/sys/fs/binfmt_misc/register
mount -t proc proc "$root/proc"
mount --bind "$root/etc/cpuinfo" "$root/proc/cpuinfo"
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
mount -t tmpfs tmpfs "$root/tmp"
mount --bind "$repository" "$root/src"
cd "$root/src"
# Not in place of this shell: the first process of a namespace is not ended by its own faults.
status=0
chroot "$root" /usr/bin/env -i -C /src HOME=/tmp LANG=C.UTF-8 PATH=/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1 \
  QEMU_CPU=cortex-a76 OPENCLAW_EXAMPLES=10 "$@" || status=$?
exit $status
"""

# What the kernel would say of the emulated CPU. Debian 12's emulator shows the machine's own, over which onnxruntime
# falls when it is imported.
_PROCESSOR = """processor\t: {}
BogoMIPS\t: 48.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1

"""

_MINUTES = 60
_LONGEST = 30 * _MINUTES


def main(arguments: Sequence[str]) -> int:
    """Makes what is missing, runs pytest, and returns its exit code."""
    CACHE.mkdir(parents=True, exist_ok=True)
    interpreter = emulator()
    root = system()
    own_wheel(root)
    command = [f"/usr/bin/{PYTHON}", "-m", "pytest", "-p", "no:cacheprovider", "--timeout", "600"]
    return enter(root, interpreter, [*command, *(arguments or SELECTION)])


def emulator() -> Path:
    """qemu-aarch64-static, out of the package for this machine."""
    folder = CACHE / "qemu"
    program = folder / "usr" / "bin" / "qemu-aarch64-static"
    if not program.exists():
        print("fetching the emulator", flush=True)
        own = _run(["dpkg", "--print-architecture"], timeout=60).strip()
        with tempfile.TemporaryDirectory(dir=CACHE) as fetched:
            _apt(own, "update")
            _apt(own, "download", "qemu-user-static", into=Path(fetched))
            _unpack(Path(fetched).glob("*.deb"), folder)
    return program


def system() -> Path:
    """A root with Debian's Python and the wheels of the lock; made once for each lock."""
    wanted = repr((ROOT_PACKAGES, EXTRA, WHEELS, PLATFORM)).encode()
    told = hashlib.sha256(LOCK.read_bytes() + wanted).hexdigest()[:12]
    root = CACHE / f"root-{told}"
    if not (root / "complete").exists():
        for stale in CACHE.glob("root-*"):
            shutil.rmtree(stale)
        print("fetching Debian's Python for arm64", flush=True)
        _apt("arm64", "update")
        _apt("arm64", "install", "--download-only", "--yes", "--no-install-recommends", *ROOT_PACKAGES)
        _unpack((CACHE / "apt-arm64" / "cache" / "archives").glob("*.deb"), root)
        for folder in ("proc", "dev", "sys", "tmp", "src", "etc"):
            (root / folder).mkdir(exist_ok=True)
        print("fetching wheels for arm64", flush=True)
        _install(root, "--require-hashes", "--requirement", str(_locked()))
        (root / "complete").touch()
    (root / "etc" / "hosts").write_text("127.0.0.1 localhost\n", encoding="ascii")
    (root / "etc" / "cpuinfo").write_text("".join(map(_PROCESSOR.format, range(2))), encoding="ascii")
    return root


def own_wheel(root: Path) -> None:
    """What a user would install: the wheel of the working tree."""
    with tempfile.TemporaryDirectory(dir=CACHE) as built:
        hatchling = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", built]
        _run(hatchling, timeout=5 * _MINUTES)
        (wheel,) = Path(built).glob("*.whl")
        _install(root, "--reinstall", str(wheel))


def enter(root: Path, interpreter: Path, command: Sequence[str]) -> int:
    """Runs a command of the root in namespaces of its own, and returns its exit code."""
    namespaces = [
        "setpriv",
        "--pdeathsig",
        "KILL",
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--",
    ]
    inside = ["sh", "-euc", _ENTER, "sh", str(root), str(REPOSITORY), str(interpreter), *command]
    try:
        return subprocess.run([*namespaces, *inside], check=False, timeout=_LONGEST).returncode
    except subprocess.TimeoutExpired:
        print(f"stopped after {_LONGEST // _MINUTES} minutes", file=sys.stderr)
        return 124


def _locked() -> Path:
    """The part of the lock that the tests need, with the hashes that it has."""
    resolve = ["compile", "pyproject.toml", "-", "--extra", EXTRA, "--constraints", str(LOCK)]
    resolve += ["--quiet", "--no-header", "--no-annotate", "--python-platform", PLATFORM, "--python-version", "3.11"]
    pinned = _run([_uv(), "pip", *resolve], timeout=10 * _MINUTES, given="\n".join(WHEELS))
    names = {line.partition("==")[0] for line in pinned.splitlines() if "==" in line}
    blocks = re.split(r"^(?=[a-z0-9])", LOCK.read_text(encoding="utf-8"), flags=re.MULTILINE)
    chosen = CACHE / "wheels.lock"
    chosen.write_text("".join(block for block in blocks if block.partition("==")[0] in names), encoding="utf-8")
    return chosen


def _install(root: Path, *what: str) -> None:
    site = root / "usr" / "local" / "lib" / PYTHON / "dist-packages"
    how = ["--python-platform", PLATFORM, "--python-version", "3.11", "--only-binary", ":all:", "--no-deps", "--quiet"]
    _run([_uv(), "pip", "install", "--target", str(site), *how, *what], timeout=15 * _MINUTES)


def _uv() -> str:
    return str(Path(sys.executable).with_name("uv"))


def _apt(architecture: str, *command: str, into: Path = CACHE) -> None:
    """apt-get with this machine's sources and keys, but state and cache of its own."""
    home = CACHE / f"apt-{architecture}"
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (home / folder).mkdir(parents=True, exist_ok=True)
    status = home / "state" / "status"
    status.touch()
    settings = {
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        # The user that apt would fetch as may not write here.
        "APT::Sandbox::User": "root",
        "Dir::State": home / "state",
        "Dir::State::status": status,
        "Dir::Cache": home / "cache",
        "Debug::NoLocking": "true",
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    _run(["apt-get", "-qq", *options, *command], timeout=15 * _MINUTES, folder=into)


def _unpack(packages: Iterable[Path], into: Path) -> None:
    """Lays out packages without their scripts, which would have to run emulated."""
    into.mkdir(parents=True, exist_ok=True)
    for package in sorted(packages):
        _run(["dpkg-deb", "--extract", str(package), str(into)], timeout=5 * _MINUTES)


def _run(command: Sequence[str], *, timeout: float, folder: Path = REPOSITORY, given: str | None = None) -> str:
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    ended = subprocess.run(
        command, cwd=folder, env=environ, input=given, text=True, capture_output=True, timeout=timeout, check=False
    )
    if ended.returncode != 0:
        raise SystemExit(f"{' '.join(command[:4])} ... ended with {ended.returncode}:\n{ended.stderr[-4000:]}")
    return ended.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
