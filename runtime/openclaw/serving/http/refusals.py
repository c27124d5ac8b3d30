"""What a client is told whose message cannot be read to its end."""

from __future__ import annotations

from openclaw.serving.http.messages import Answer, Limits, refusal


def malformed(error: Exception) -> Answer:
    """It is no message."""
    return refusal(400, f"this is not HTTP/1.1: {error}")


def too_large_head(limits: Limits) -> Answer:
    """Its head is too long, or has too many headers."""
    return refusal(431, f"the head is too large; allowed: {limits.max_head_bytes} bytes, {limits.max_headers} headers")


def too_much_beside_body(limits: Limits) -> Answer:
    """Trailers or chunk extensions are too long."""
    return refusal(431, f"what comes beside the body is too large; allowed: {limits.max_head_bytes} bytes")


def too_large_body(limits: Limits, length: int | None) -> Answer:
    """Its body has ``length`` bytes; None: more than are allowed, and nobody knows how many."""
    limit = limits.max_body_bytes
    if length is None:
        return refusal(413, f"the body has more than {limit} bytes, which is what is allowed")
    return refusal(413, f"the body has {length} bytes; allowed: {limit}")


def unknown_coding(value: bytes) -> Answer:
    """Its body is framed in a way that is not understood (RFC 9112, 6.1)."""
    return refusal(501, f"Transfer-Encoding is {value[:80].decode('latin-1')!r}; chunked is understood")
