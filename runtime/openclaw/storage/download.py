"""A download under way: its chunks, and what tells whether it is of another version than the one that is known."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

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
