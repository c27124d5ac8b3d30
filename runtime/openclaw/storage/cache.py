"""The folder of downloaded models: content-addressed, safe to share between processes.

blobs/SHA256.onnx     a model, complete and synced before it gets this name
refs/KEY.json         what a URI pointed to when it was last seen (KEY: SHA-256 of the URI)
parts/KEY.*.part      a download under way; KEY's lock is held as long as one may exist
locks/KEY.lock        flock(2): the kernel frees it when its holder dies, however it dies
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from openclaw.errors import ConfigInvalid
from openclaw.storage.download import Validators
from openclaw.storage.uri import ModelUri

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Ref:
    """A URI's last seen version: the digest of its bytes, and how the store called it."""

    sha256: str
    validators: Validators


def default_folder() -> Path:
    """``OPENCLAW_CACHE_DIR``, or ``openclaw`` in the user's cache folder (XDG base directories), or in /tmp."""
    chosen = os.environ.get("OPENCLAW_CACHE_DIR")
    if chosen:
        return Path(chosen)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "openclaw"
    except RuntimeError:
        # A container's user has no home when its number is not in /etc/passwd.
        return Path(tempfile.gettempdir()) / "openclaw"


def key_of(uri: ModelUri) -> str:
    """A file name for ``uri`` that says nothing of what is in it."""
    return hashlib.sha256(uri.text.encode()).hexdigest()[:32]


class Cache:
    """One cache folder. Methods that hash or write block: call them in a thread."""

    def __init__(self, folder: Path) -> None:
        self._blobs, self._refs = folder / "blobs", folder / "refs"
        self._parts, self._locks = folder / "parts", folder / "locks"
        try:
            for child in (self._blobs, self._refs, self._parts, self._locks):
                child.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigInvalid(
                f"the cache folder {folder} cannot be used ({error.strerror}); set OPENCLAW_CACHE_DIR to one that can"
            ) from error

    def blob(self, sha256: str) -> Path:
        """Where the model with this digest is, or would be."""
        return self._blobs / f"{sha256}.onnx"

    def verified(self, sha256: str) -> Path | None:
        """The cached model with this digest, after reading it whole; a damaged one is removed."""
        path = self.blob(sha256)
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            return None
        if found == sha256:
            return path
        log.warning("the cached model %s is damaged; it is downloaded again", path)
        path.unlink(missing_ok=True)
        return None

    def ref(self, key: str) -> Ref | None:
        """What the URI pointed to when it was last seen; an unreadable note counts as none."""
        try:
            document = json.loads((self._refs / f"{key}.json").read_text(encoding="utf-8"))
            return Ref(str(document["sha256"]), Validators(**document["validators"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def commit(self, part: Path, key: str, ref: Ref) -> Path:
        """Gives a synced part its final name, and notes what the URI points to."""
        path = self.blob(ref.sha256)
        part.replace(path)
        _sync_folder(path.parent)
        note = self.new_part(key)
        note.write_text(json.dumps(asdict(ref)), encoding="utf-8")
        note.replace(self._refs / f"{key}.json")
        return path

    def new_part(self, key: str) -> Path:
        """A fresh temporary file for ``key``, whose lock the caller holds."""
        descriptor, name = tempfile.mkstemp(prefix=f"{key}.", suffix=".part", dir=self._parts)
        os.close(descriptor)
        return Path(name)

    def sweep(self, key: str) -> None:
        """Removes what crashed downloads left: of ``key``, whose lock the caller holds, and of any other
        key whose lock is free.
        """
        for part in self._parts.glob("*.part"):
            owner = part.name.partition(".")[0]
            if owner == key:
                part.unlink(missing_ok=True)
                continue
            descriptor = self._open_lock(owner)
            try:
                if _try_lock(descriptor):
                    part.unlink(missing_ok=True)
            finally:
                os.close(descriptor)

    @asynccontextmanager
    async def locked(self, key: str) -> AsyncIterator[None]:
        """Holds ``key``'s lock against every other process; waits without blocking the event loop."""
        descriptor = self._open_lock(key)
        try:
            waited = False
            while not _try_lock(descriptor):
                if not waited:
                    log.info("another process downloads the same model; waiting for it")
                waited = True
                await asyncio.sleep(_POLL_SECONDS)
            yield
        finally:
            os.close(descriptor)

    def _open_lock(self, key: str) -> int:
        return os.open(self._locks / f"{key}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _try_lock(descriptor: int) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
