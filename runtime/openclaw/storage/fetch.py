"""Brings a model from its URI to a local file: in place for files, through the cache for the rest."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from openclaw.config import ModelConfig
from openclaw.errors import (
    ModelAccessDenied,
    ModelDigestMismatch,
    ModelDownloadFailed,
    ModelDownloadTimeout,
    ModelNotFound,
    ModelTooLarge,
)
from openclaw.storage.cache import Cache, Ref, key_of
from openclaw.storage.download import Download, Validators
from openclaw.storage.sources import open_source
from openclaw.storage.uri import ModelUri, parse

log = logging.getLogger(__name__)

ATTEMPTS = 3
PROGRESS_SECONDS = 2.0
MIB = 1024**2

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """How long and how much.

    Attributes:
        timeout_seconds: the whole fetch, retries and waiting for another process included.
        stall_seconds: any wait for the next bytes.
        retry_seconds: the pause before the second attempt; it doubles.
        max_bytes: the model's size.
    """

    timeout_seconds: float = 600
    stall_seconds: float = 30
    retry_seconds: float = 0.5
    max_bytes: int = 16 * 1024**3


async def fetch_model(config: ModelConfig, cache_dir: Path) -> Path:
    """The model that a server's configuration names, as a local file; raises as :func:`fetch`."""
    limits = Limits(timeout_seconds=config.download_timeout_seconds, max_bytes=config.max_bytes)
    return await fetch(parse(config.uri), cache_dir=cache_dir, sha256=config.sha256, limits=limits)


async def fetch(uri: ModelUri, *, cache_dir: Path, sha256: str | None = None, limits: Limits | None = None) -> Path:
    """Returns a local file that holds the model, downloading it only if it must.

    With ``sha256`` a cached file is used after its bytes were verified, and the store is not asked.
    Without, the store is asked whether it has another version; when it cannot be reached, the version
    that is cached is used with a warning.

    Raises:
        ModelNotFound, ModelAccessDenied, ModelDigestMismatch, ModelTooLarge, ModelDownloadTimeout,
        ModelDownloadFailed, ConfigInvalid.
    """
    limits = limits or Limits()
    if uri.scheme == "file":
        return await asyncio.to_thread(_local, Path(uri.path), sha256, limits.max_bytes)
    try:
        async with asyncio.timeout(limits.timeout_seconds):
            return await _through_cache(uri, await asyncio.to_thread(Cache, cache_dir), sha256=sha256, limits=limits)
    except TimeoutError as error:
        raise ModelDownloadTimeout(
            f"{uri} was not downloaded within {limits.timeout_seconds:g} s; the store is slow or does not answer"
        ) from error
    except OSError as error:
        raise ModelDownloadFailed(_disk_sentence(uri, cache_dir, error)) from error


async def _through_cache(uri: ModelUri, cache: Cache, *, sha256: str | None, limits: Limits) -> Path:
    if sha256 and (path := await asyncio.to_thread(cache.verified, sha256)):
        return path
    key = key_of(uri)
    async with cache.locked(key):
        await asyncio.to_thread(cache.sweep, key)
        # Whoever held the lock before may have brought what we want.
        if sha256 and (path := await asyncio.to_thread(cache.verified, sha256)):
            return path
        ref = None if sha256 else cache.ref(key)
        cached = await asyncio.to_thread(cache.verified, ref.sha256) if ref else None
        known = ref.validators if ref and cached else None
        try:
            path = await _with_retries(_Job(uri, cache, key, sha256, limits), known) or cached
        except (ModelDownloadFailed, ModelDownloadTimeout) as error:
            if cached is None:
                raise
            log.warning("the cached model is used: %s", error)
            path = cached
        assert path is not None
        return path


@dataclass(frozen=True)
class _Job:
    uri: ModelUri
    cache: Cache
    key: str
    sha256: str | None
    limits: Limits


async def _with_retries(job: _Job, known: Validators | None) -> Path | None:
    for attempt in range(1, ATTEMPTS):
        try:
            return await _download(job, known)
        except ModelDownloadFailed as error:
            log.warning("attempt %d of %d: %s", attempt, ATTEMPTS, error)
            await asyncio.sleep(job.limits.retry_seconds * 2 ** (attempt - 1))
    return await _download(job, known)


async def _download(job: _Job, known: Validators | None) -> Path | None:
    """One attempt; None when the store says that the known version still holds."""
    async with AsyncExitStack() as stack:
        download = await _in_time(stack.enter_async_context(open_source(job.uri, known)), job)
        if download.unchanged:
            log.info("%s has not changed; the cached model is used", job.uri)
            return None
        return await _store(job, download)


async def _store(job: _Job, download: Download) -> Path:
    _check_size(job, download.validators.size or 0)
    part = await asyncio.to_thread(job.cache.new_part, job.key)
    try:
        with part.open("wb") as file:
            digest, size = await _write(job, download, file)
            await asyncio.to_thread(_sync, file)
        expected = download.validators.size
        if expected is not None and size != expected:
            raise ModelDownloadFailed(f"{job.uri} was cut short: {size:,} of {expected:,} bytes came")
        if job.sha256 and digest != job.sha256:
            raise ModelDigestMismatch(f"{job.uri} has the SHA-256 {digest}, not {job.sha256}, which was asked for")
        return await asyncio.to_thread(job.cache.commit, part, job.key, Ref(digest, download.validators))
    finally:
        part.unlink(missing_ok=True)


async def _write(job: _Job, download: Download, file: BinaryIO) -> tuple[str, int]:
    hasher, size = hashlib.sha256(), 0
    start = said = time.monotonic()

    def keep(chunk: bytes | memoryview) -> None:
        hasher.update(chunk)
        file.write(chunk)

    chunks = aiter(download.chunks)
    while (chunk := await _in_time(_next(chunks), job)) is not None:
        size += len(chunk)
        _check_size(job, size)
        await asyncio.to_thread(keep, chunk)
        if time.monotonic() - said >= PROGRESS_SECONDS:
            said = time.monotonic()
            total = download.validators.size
            of = f" of {total / MIB:.0f}" if total else ""
            log.info("downloading %s: %.0f%s MiB in %.0f s", job.uri, size / MIB, of, said - start)
    log.info("downloaded %s: %s bytes in %.1f s", job.uri, f"{size:,}", time.monotonic() - start)
    return hasher.hexdigest(), size


async def _next(chunks: AsyncIterator[bytes | memoryview]) -> bytes | memoryview | None:
    return await anext(chunks, None)


async def _in_time(wait: Awaitable[T], job: _Job) -> T:
    try:
        async with asyncio.timeout(job.limits.stall_seconds) as stall:
            return await wait
    except TimeoutError as error:
        if not stall.expired():
            raise
        raise ModelDownloadTimeout(
            f"{job.uri}: no bytes came for {job.limits.stall_seconds:g} s; the store does not answer"
        ) from error


def _check_size(job: _Job, size: int) -> None:
    if size > job.limits.max_bytes:
        raise ModelTooLarge(f"{job.uri} has at least {size:,} bytes; maxBytes allows {job.limits.max_bytes:,}")


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _local(path: Path, sha256: str | None, max_bytes: int) -> Path:
    try:
        if path.is_dir():
            raise ModelNotFound(f"{path} is a folder; name the .onnx file in it")
        size = path.stat().st_size
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest() if sha256 else None
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelNotFound(f"there is no file {path}") from error
    except PermissionError as error:
        raise ModelAccessDenied(f"{path} may not be read by user {os.getuid()}") from error
    if size > max_bytes:
        raise ModelTooLarge(f"{path} has {size:,} bytes; maxBytes allows {max_bytes:,}")
    if digest != sha256:
        raise ModelDigestMismatch(f"{path} has the SHA-256 {digest}, not {sha256}, which was asked for")
    return path


def _disk_sentence(uri: ModelUri, folder: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{uri} does not fit into the cache folder {folder}: no space is left there"
    return f"{uri} cannot be kept in the cache folder {folder}: {error.strerror or error}"
