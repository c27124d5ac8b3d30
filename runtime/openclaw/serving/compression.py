"""Content codings (RFC 9110, 8.4): request bodies unpacked within bounds, answers packed where a client prefers it.

``gzip`` is RFC 1952 and ``deflate`` the zlib format of RFC 1950; bare RFC 1951 under the name ``deflate``, as
some clients send it, is understood.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Iterator

from openclaw.errors import InvalidRequest, RequestTooLarge, UnsupportedEncoding
from openclaw.serving.shown import shown

CODINGS = ("gzip", "deflate")
"""What is understood and offered, the preferred first."""

WORTHWHILE = 1024
"""Bytes below which an answer is sent as it is: packing would cost more than the network saves."""

_PIECE = 64 * 1024
_STEP = 1024 * 1024
_ALIASES = {"x-gzip": "gzip"}
_GZIP, _ZLIB, _BARE = 31, 15, -15  # zlib's wbits
# Answers wait for it: beyond the first level, time grows much faster than size shrinks.
_LEVEL = 1
_QUALITY = re.compile(r"[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")
_PACKED_TYPES = ("application/json", "text/")


def _unheard(size: int) -> None:
    """Nobody wants to know."""


def decompress(
    body: bytes | bytearray | memoryview, encoding: str, *, max_bytes: int, growing: Callable[[int], None] = _unheard
) -> bytes | bytearray | memoryview:
    """Undoes the ``Content-Encoding`` of a request's body.

    Never holds more than ``max_bytes`` of unpacked data, whatever the body claims to be.

    Args:
        body: as it was sent.
        encoding: the header's value.
        max_bytes: of unpacked data.
        growing: is told how many bytes of it there are, again and again; may raise.

    Raises:
        UnsupportedEncoding: the coding is none of ``CODINGS`` or ``identity``, or there are several.
        RequestTooLarge: the body unpacks to more than ``max_bytes``.
        InvalidRequest: the body is damaged, cut short, or followed by something else.
    """
    coding = encoding.strip().lower()
    coding = _ALIASES.get(coding, coding)
    if coding in {"identity", ""}:
        return body
    if coding not in CODINGS:
        raise UnsupportedEncoding(
            f"Content-Encoding is {shown(encoding)}; allowed: one of {', '.join(CODINGS)} and identity"
        )
    unpacked = bytearray()
    packed = memoryview(body)
    machine = zlib.decompressobj(_window_bits(coding, packed))
    for start in range(0, len(packed), _PIECE):
        if machine.eof:
            raise _trailing(coding, len(packed) - start)
        try:
            # One byte over the limit is enough to know.
            for piece in _pieces(machine, packed[start : start + _PIECE], max_bytes - len(unpacked) + 1):
                unpacked += piece
                growing(len(unpacked))
                if len(unpacked) > max_bytes:
                    raise RequestTooLarge(f"the body unpacks to more than {max_bytes} bytes, which are allowed")
        except zlib.error as error:
            raise InvalidRequest(f"the body is not {coding}, as Content-Encoding says: {error}") from error
    if machine.unused_data:
        raise _trailing(coding, len(machine.unused_data))
    if not machine.eof:
        raise InvalidRequest(f"the body is cut short: its {coding} data does not end")
    return unpacked


def _pieces(machine: zlib._Decompress, packed: memoryview, most: int) -> Iterator[bytes]:
    """What the bytes unpack to, _STEP at a time, up to ``most``: they may unpack to a thousand times as many."""
    left: bytes | memoryview = packed
    while most > 0:
        step = min(_STEP, most)
        piece = machine.decompress(left, step)
        most -= len(piece)
        yield piece
        left = machine.unconsumed_tail
        # A full piece may have left more behind, inside of the machine.
        if machine.eof or not (left or len(piece) == step):
            return


def negotiate(accept_encoding: str | None, *, content_type: str, size: int) -> str | None:
    """The coding to answer in, or None to answer plainly (RFC 9110, 12.5.3).

    Only JSON and text above ``WORTHWHILE`` bytes are packed, and only where the client gives a coding more weight
    than ``identity``; between equals, gzip. What it cannot be read as is taken as not said.

    Args:
        accept_encoding: the header's value, if it was sent.
        content_type: of the answer.
        size: of the answer, bytes.
    """
    if not accept_encoding or size <= WORTHWHILE or not content_type.startswith(_PACKED_TYPES):
        return None
    weights = _weights(accept_encoding)
    others = weights.get("*", 0.0)
    best = max(CODINGS, key=lambda coding: weights.get(coding, others))
    return best if weights.get(best, others) > weights.get("identity", 0.0) else None


def compress(parts: Iterable[bytes | memoryview], coding: str) -> bytes:
    """A body in one of ``CODINGS``."""
    machine = zlib.compressobj(_LEVEL, wbits=_GZIP if coding == "gzip" else _ZLIB)
    return b"".join([*map(machine.compress, parts), machine.flush()])


def _window_bits(coding: str, packed: memoryview) -> int:
    if coding == "gzip":
        return _GZIP
    # RFC 1950, 2.2: the method is 8, and the first two bytes are a multiple of 31.
    is_zlib = len(packed) >= 2 and packed[0] & 0x0F == 8 and (packed[0] << 8 | packed[1]) % 31 == 0
    return _ZLIB if is_zlib else _BARE


def _trailing(coding: str, count: int) -> InvalidRequest:
    # gzip allows members one after the other, but no client is known to send them, and a body of millions of
    # empty ones would be work without end.
    return InvalidRequest(f"{count} bytes or more follow the end of the body's {coding} data")


def _weights(accept_encoding: str) -> dict[str, float]:
    weights: dict[str, float] = {}
    for item in accept_encoding.lower().split(","):
        name, *parameters = (part.strip() for part in item.split(";"))
        weight = _weight(parameters)
        if name and weight is not None:
            weights[_ALIASES.get(name, name)] = weight
    return weights


def _weight(parameters: list[str]) -> float | None:
    if not parameters:
        return 1.0
    match = _QUALITY.fullmatch(parameters[0])
    return float(match.group(1)) if match and len(parameters) == 1 else None
