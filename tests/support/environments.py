"""Programs that we test with, each in an environment of its own: they need other versions than we do."""

import hashlib
import subprocess
import sys
from pathlib import Path

from support.markdown import REPOSITORY


def bin_of(program: str) -> Path:
    """The bin folder of an environment as `requirements/clients/PROGRAM.lock` says; made once for each lock."""
    lock = REPOSITORY / "requirements" / "clients" / f"{program}.lock"
    folder = REPOSITORY / ".cache" / f"{program}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    made = folder / "complete"
    if not made.exists():
        uv, python = Path(sys.executable).with_name("uv"), folder / "bin" / "python"
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder], check=True)
        install = [uv, "pip", "install", "--quiet", "--python", python, "--require-hashes", "--requirement", lock]
        subprocess.run(install, check=True)
        made.touch()
    return folder / "bin"
