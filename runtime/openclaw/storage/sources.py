"""Opens a remote model as a stream of chunks; every store's errors become the errors of this package.

Buckets go through obstore, which signs, retries and resumes. Plain web servers go through aiohttp:
obstore's HTTP store drops the query that a signed URL lives by, and refuses answers without a length.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from openclaw.storage.uri import BUCKETS, ModelUri

CHUNK_BYTES = 1 << 20
CONNECT_SECONDS = 10


@dataclass(frozen=True)
class Validators:
    """What tells two versions of an object apart (RFC 9110, section 8.8); None: the store does not say."""

    etag: str | None
    last_modified: str | None
    size: int | None

    def proves_same(self, other: Validators) -> bool:
        """Whether ``other`` is surely the same version: one strong sign, and no contradiction."""
        if self.etag is not None or other.etag is not None:
            return self.etag == other.etag
        return self.last_modified is not None and self == other


@dataclass(frozen=True)
class Download:
    """An open stream; ``unchanged`` when the store says that the known version still holds."""

    chunks: AsyncIterator[bytes | memoryview]
    validators: Validators
    unchanged: bool = False


def open_source(uri: ModelUri, known: Validators | None) -> AbstractAsyncContextManager[Download]:
    """Opens ``uri`` for reading, asking only for what is newer than ``known``.

    Raises (on entering, and while reading):
        ModelNotFound, ModelAccessDenied, ModelDownloadFailed, ConfigInvalid.
    """
    # Each client takes longer to import than a local model takes to load.
    if uri.scheme in BUCKETS:
        from openclaw.storage import buckets

        return buckets.open_bucket(uri, known)
    from openclaw.storage import web

    return web.open_web(uri, known)


def same(known: Validators | None, now: Validators) -> bool:
    """Whether nothing is newer than what is known."""
    return known is not None and known.proves_same(now)


async def nothing() -> AsyncIterator[bytes]:
    """The chunks of a model that is not newer."""
    none: tuple[bytes, ...] = ()
    for chunk in none:
        yield chunk


def brief(error: Exception) -> str:
    """The first line of an error, without queries: they may be signatures."""
    text = str(error).partition("\n")[0] or type(error).__name__
    return re.sub(r"\?\S+", "?...", text)[:500]
