"""Container images without a container engine: a Debian base by debootstrap, Dockerfiles by buildah.

Builds find packages the way this machine does: its pip settings and its bundle of certificates are mounted
while a step runs, and no trace of them is in the image. A Dockerfile takes part with
`RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf pip install ...`, which any other builder accepts too.
"""

import configparser
import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from testcluster import packages
from testcluster.errors import CommandError
from testcluster.locking import turn
from testcluster.paths import cache
from testcluster.process import run
from testcluster.toolchain import build

BASE = "localhost/base"
"""Debian 12 with Python 3.11: what a Dockerfile's `BASE` argument is set to where no registry is at hand."""
PAUSE = "localhost/pause:1"
"""First container of every pod."""

_RELEASE = "bookworm"
_PACKAGES = "ca-certificates,python3,python3-venv"
# Nothing that is read at run time, and more than half of the size.
_UNUSED = ("var/cache/apt", "var/lib/apt/lists", "var/log", "usr/share/doc", "usr/share/man", "usr/share/locale")
_BUILD_TIMEOUT = 1200
_MOUNTED = "/run/openclaw-build"


async def build_image(
    dockerfile: Path,
    tag: str,
    *,
    context: Path,
    build_args: Mapping[str, str] | None = None,
    target: str | None = None,
    say: Callable[[str], None],
) -> Path:
    """Build `dockerfile` as image `tag` and return it as a docker-archive tar, with `BASE` as its base.

    Raises:
        MissingToolError: buildah or debootstrap is missing.
        CommandError: a step of the build failed; its output is in the message.
    """
    await ensure_base(say)
    say(f"{tag}: building")
    arguments = {"BASE": BASE, **(build_args or {})}
    command: list[str | Path] = ["bud", "--layers", "--isolation=chroot", "--network=host", f"--tag={tag}"]
    command += [f"--build-arg={name}={value}" for name, value in arguments.items()]
    command += [f"--target={target}"] if target else []
    with tempfile.TemporaryDirectory() as folder:
        command += _package_access(Path(folder))
        await _buildah(*command, f"--file={dockerfile}", context)
    return await _export(tag)


async def ensure_base(say: Callable[[str], None]) -> None:
    """Have the image `BASE` in buildah's store; made once (a minute), then unpacked from the cache."""
    await packages.ensure(packages.IMAGES, say)
    packages.require_root("building images")
    async with turn(_images() / ".lock", say):
        await _make_base(say)


async def _make_base(say: Callable[[str], None]) -> None:
    recipe = hashlib.sha256(f"{_RELEASE} {_PACKAGES} {_UNUSED}".encode()).hexdigest()[:12]
    if await _is_known(f"{BASE}:{recipe}"):
        return
    archive = _images() / f"base-{recipe}.tar"
    if not archive.exists():
        say(f"{BASE}: bootstrapping Debian {_RELEASE}")
        await _bootstrap(archive)
    await _build_from_scratch(f"ADD {archive.name} /\n", archive.parent, f"{BASE}:{recipe}")
    await _buildah("tag", f"{BASE}:{recipe}", BASE)


async def pause_image(say: Callable[[str], None]) -> Path:
    """Return the image `PAUSE` as a docker-archive tar."""
    await packages.ensure(packages.IMAGES, say)
    command = (await build(["pause"], say))["pause"]
    fingerprint = hashlib.sha256(command.read_bytes()).hexdigest()[:12]
    archive = _images() / f"pause-{fingerprint}.tar"
    async with turn(_images() / ".lock", say):
        if not archive.exists():
            await _build_from_scratch('COPY pause /pause\nENTRYPOINT ["/pause"]\n', command.parent, PAUSE)
            (await _export(PAUSE)).replace(archive)
    return archive


async def _build_from_scratch(steps: str, context: Path, tag: str) -> None:
    with tempfile.NamedTemporaryFile("w", prefix="Dockerfile-") as file:
        file.write(f"FROM scratch\n{steps}")
        file.flush()
        await _buildah("bud", f"--tag={tag}", f"--ignorefile={os.devnull}", f"--file={file.name}", context)


async def _bootstrap(archive: Path) -> None:
    with tempfile.TemporaryDirectory(dir=_images()) as folder:
        root = Path(folder) / "root"
        # It mounts /proc and does not always unmount it: in a mount namespace that ends with it.
        command: list[str | Path] = ["unshare", "--mount", "nice", "debootstrap", "--variant=minbase"]
        await run([*command, f"--include={_PACKAGES}", _RELEASE, root], timeout=_BUILD_TIMEOUT)
        for unused in _UNUSED:
            shutil.rmtree(root / unused)
            (root / unused).mkdir()
        packed = Path(folder) / "base.tar"
        await run(["tar", f"--directory={root}", "--numeric-owner", "--create", f"--file={packed}", "."], timeout=300)
        packed.replace(archive)


async def _export(tag: str) -> Path:
    name = tag.rpartition("/")[2].replace(":", "-")
    archive = _images() / f"{name}.tar"
    archive.unlink(missing_ok=True)  # buildah does not overwrite one
    await _buildah("push", tag, f"docker-archive:{archive}:{tag if ':' in tag else f'{tag}:latest'}")
    return archive


async def _is_known(tag: str) -> bool:
    try:
        await _buildah("inspect", "--type=image", tag)
    except CommandError:
        return False
    return True


async def _buildah(*arguments: str | Path) -> str:
    # In a mount namespace that ends with it, so a build that is killed leaves nothing mounted.
    store = cache() / "buildah"
    command = ["buildah", "--storage-driver=overlay", f"--root={store / 'root'}", f"--runroot={store / 'run'}"]
    return await run(["unshare", "--mount", "nice", *command, *arguments], timeout=_BUILD_TIMEOUT)


def _images() -> Path:
    folder = cache() / "images"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _package_access(folder: Path) -> list[str]:
    """Flags that let the build's steps reach packages as this machine does; files are made in `folder`."""
    settings = _pip_settings()
    flags = []
    bundle = settings.get("cert") or os.environ.get("SSL_CERT_FILE")
    if bundle and Path(bundle).is_file():
        flags.append(f"--volume={Path(bundle).resolve()}:{_MOUNTED}/ca.crt:ro")
        settings["cert"] = f"{_MOUNTED}/ca.crt"
    wheels = settings.get("find-links", "")
    if Path(wheels).is_absolute() and Path(wheels).is_dir():
        flags.append(f"--volume={wheels}:{_MOUNTED}/wheels:ro")
        settings["find-links"] = f"{_MOUNTED}/wheels"
    written = configparser.RawConfigParser()
    written["global"] = settings
    text = io.StringIO()
    written.write(text)
    (folder / "pip.conf").write_text(text.getvalue())
    return [*flags, f"--secret=id=pip.conf,src={folder / 'pip.conf'}"]


def _pip_settings() -> dict[str, str]:
    """The pip settings of this machine; the environment wins over the file, as in pip."""
    read = configparser.RawConfigParser()
    read.read("/etc/pip.conf")
    settings = dict(read["global"]) if read.has_section("global") else {}
    for name, value in os.environ.items():
        if name.startswith("PIP_") and name != "PIP_CONFIG_FILE":
            settings[name.removeprefix("PIP_").lower().replace("_", "-")] = value
    return settings
