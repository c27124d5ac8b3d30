"""The demo of the digits example, run in a copy of its folder."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from support.markdown import REPOSITORY


@dataclass(frozen=True, slots=True)
class Demo:
    """A copy of the example in which the demo was run: its exit code and what it said."""

    folder: Path
    code: int
    said: str

    @property
    def build(self) -> Path:
        return self.folder / "build"

    def members(self) -> list[psutil.Process]:
        """Processes that have to do with the folder."""
        found = []
        for process in psutil.process_iter():
            try:
                words = (*process.cmdline(), *process.environ().values())
            except (psutil.Error, OSError):
                continue
            if process.pid != os.getpid() and any(str(self.folder) in word for word in words):
                found.append(process)
        return found


def run_demo(folder: Path) -> Demo:
    """Runs the demo in a fresh copy of the example, where nothing was trained yet."""
    shutil.copytree(REPOSITORY / "examples" / "digits", folder, ignore=shutil.ignore_patterns("build", "__pycache__"))
    ended = subprocess.run(
        [sys.executable, folder / "demo.py"], capture_output=True, text=True, timeout=90, check=False, cwd=folder
    )
    return Demo(folder, ended.returncode, ended.stdout + ended.stderr)
