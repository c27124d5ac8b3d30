"""Forms of models that a step before serving made: each is found by the digest of the model that it stands for."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path


def place_of(folder: Path, sha256: str) -> Path:
    """Where the form of the model with this SHA-256 is, or would be."""
    return folder / f"{sha256}.onnx"


def digest_of(model: Path) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits; of one that did not change since, it is known."""
    told = model.stat()
    return _digest(model, told.st_size, told.st_mtime_ns)


@lru_cache(maxsize=64)
def _digest(model: Path, _size: int, _modified: int, /) -> str:
    with model.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def form_of(folder: str | Path | None, model: Path) -> Path | None:
    """The form that was made of exactly this file; None where there is none, or no folder of forms."""
    if folder is None or not any(Path(folder).glob("*.onnx")):
        return None
    found = place_of(Path(folder), digest_of(model))
    return found if found.is_file() else None
