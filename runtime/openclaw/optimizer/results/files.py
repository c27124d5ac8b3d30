"""Writes results so that no reader ever sees half of one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import BinaryIO

from openclaw.errors import ConfigInvalid
from openclaw.optimizer.results.result import Result


def check_writable(path: Path, option: str) -> None:
    """Says at once, and not after minutes of work, that a file cannot be written; raises ConfigInvalid."""
    if path.is_dir():
        raise ConfigInvalid(f"{option}: {path} is a folder; give the name of a file")
    if not path.parent.is_dir():
        raise ConfigInvalid(f"{option}: there is no folder {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK):
        raise ConfigInvalid(f"{option}: the folder {path.parent} cannot be written to")


def write_atomically(path: Path, fill: Callable[[BinaryIO], object]) -> None:
    """Gives ``path`` new contents in one step: they are written and synced beside it, and then renamed."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp lets nobody else read; a file that a user names gets what the process's mask allows.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_model(result: Result, path: Path) -> None:
    """Writes a result; with its files of weights, where it was passed through with these outside."""
    if not result.origin:
        write_atomically(path, lambda file: file.write(result.model.SerializeToString()))
        return
    folder = result.origin[0].parent
    copies = [(file, path.parent / file.relative_to(folder)) for file in result.origin[1:]]
    # The model comes last: whoever sees it finds its weights.
    for origin, copy in (*copies, (result.origin[0], path)):
        if copy.exists() and copy.samefile(origin):
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        with origin.open("rb") as stream:
            write_atomically(copy, partial(shutil.copyfileobj, stream))
