"""Forms of models that a step before serving made: each is found by the digest of the model that it stands for."""

from __future__ import annotations

import hashlib
from pathlib import Path


def place_of(folder: Path, sha256: str) -> Path:
    """Where the form of the model with this SHA-256 is, or would be."""
    return folder / f"{sha256}.onnx"


def digest_of(model: Path) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits."""
    with model.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def form_of(folder: Path, model: Path) -> Path | None:
    """The form that was made of exactly this file; None where there is none."""
    if not any(folder.glob("*.onnx")):
        return None
    found = place_of(folder, digest_of(model))
    return found if found.is_file() else None
