"""The library's front door: a model from anywhere, ready to run."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from openclaw.devices.assigning import Assignment
from openclaw.execute.placed import open_model
from openclaw.execute.session import Model
from openclaw.storage.cache import default_folder
from openclaw.storage.fetch import Limits, fetch
from openclaw.storage.uri import ModelUri, from_argument


def load(
    source: str | Path,
    *,
    name: str | None = None,
    threads: int | None = None,
    device: Assignment | str | int | None = None,
    sha256: str | None = None,
    cache_dir: Path | None = None,
    limits: Limits | None = None,
) -> Model:
    """Loads a model from a path or URI (``s3://``, ``gs://``, ``az://``, ``http(s)://``, ``file://``).

    Args:
        source: where the model is; a file is opened in place, anything else goes through the cache.
        name: how the model is called; by default the file's stem.
        threads: threads that one inference may use; by default the whole cores granted to this process.
        device: where it runs: an assignment of :class:`openclaw.DeviceManager`, a device's number, or ``gpu``, ``npu``,
            ``cpu`` or ``auto`` for whichever suits best; by default the CPU.
        sha256: 64 hexadecimal digits that the model's bytes must have.
        cache_dir: where downloads are kept; by default ``OPENCLAW_CACHE_DIR`` or the user's cache folder.
        limits: how long a download may take and how large it may be.

    Raises:
        StartupError: one of its kinds, with the sentence a user needs.
    """
    uri = from_argument(str(source), Path.cwd())
    path = _wait_for(uri, cache_dir=cache_dir or default_folder(), sha256=sha256, limits=limits)
    return open_model(path, device=device, name=name or Path(uri.filename).stem, threads=threads)


def _wait_for(uri: ModelUri, *, cache_dir: Path, sha256: str | None, limits: Limits | None) -> Path:
    # In a thread of its own: a notebook already runs an event loop in this one.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(
            lambda: asyncio.run(fetch(uri, cache_dir=cache_dir, sha256=sha256, limits=limits))
        ).result()
