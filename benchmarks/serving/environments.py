"""Each peer in a virtual environment of its own, made once.

What is installed is pinned in `peers/NAME.lock`, all but onnxruntime: that is the version of the environment that runs
the benchmark, so every subject has the same engine. To renew the pins of a peer, delete its lock and run the
benchmark: the new environment's versions are written there.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

HOME = Path.home() / ".cache" / "openclaw" / "bench-serving"
LOCKS = Path(__file__).parent / "peers"
_MARK = "installed"
_LIMIT = 1200  # seconds that one installation may take


class InstallationError(Exception):
    """An environment cannot be made here; the text says why in a line."""


@dataclass(frozen=True, slots=True)
class Environment:
    """What a peer needs.

    Attributes:
        name: of the folder, and of the lock.
        requirements: pinned, without onnxruntime.
    """

    name: str
    requirements: tuple[str, ...]

    @property
    def lock(self) -> Path:
        """The versions of everything in it."""
        return LOCKS / f"{self.name}.lock"

    @property
    def folder(self) -> Path:
        """Where it is: another one for other requirements, pins, Python or onnxruntime."""
        pins = self.lock.read_text() if self.lock.exists() else ""
        parts = (*self.requirements, pins, engine(), sys.version)
        return HOME / f"{self.name}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:12]}"

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def installed(self) -> bool:
        """Whether it was made to the end."""
        return (self.folder / _MARK).exists()


def engine() -> str:
    """The requirement for the engine that all subjects share."""
    return f"onnxruntime=={version('onnxruntime')}"


def install(environment: Environment, say: Callable[[str], None]) -> None:
    """Makes the environment unless it is there; what pip-like tools print goes to the terminal.

    Raises:
        InstallationError: with the reason.
    """
    if environment.installed:
        return
    say(f"installing {environment.name} into {environment.folder} (once) ...")
    folder = environment.folder
    # What an interrupted run left there is not to be trusted.
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _uv("venv", "--quiet", "--python", sys.executable, str(folder))
    constraints = ["--constraints", str(environment.lock)] if environment.lock.exists() else []
    _uv("pip", "install", "--python", str(folder), *constraints, engine(), *environment.requirements)
    if not environment.lock.exists():
        folder = _locked(environment)
    (folder / _MARK).touch()


def _locked(environment: Environment) -> Path:
    """Writes the lock of an environment that was made without one; its folder is then another, where it moves."""
    folder = environment.folder
    frozen = _uv("pip", "freeze", "--python", str(folder), capture=True)
    pins = [line for line in frozen.splitlines() if not line.startswith("onnxruntime==")]
    environment.lock.write_text("\n".join(pins) + "\n")
    # Scripts in a virtual environment hold its path; only the interpreter is used here.
    return folder.rename(environment.folder)


def _uv(*arguments: str, capture: bool = False) -> str:
    tool = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if tool is None:
        raise InstallationError("uv is not there; `make install` brings it")
    try:
        done = subprocess.run(
            [tool, *arguments], stdout=subprocess.PIPE if capture else None, text=True, timeout=_LIMIT, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise InstallationError(f"`uv {arguments[0]}` did not end within {_LIMIT} s") from error
    if done.returncode:
        raise InstallationError(f"`uv {' '.join(arguments[:2])}` failed with {done.returncode}; its output is above")
    return done.stdout or ""
