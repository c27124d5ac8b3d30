"""A client's values in a sentence about them."""

from __future__ import annotations

import orjson

_LONGEST = 80
_MOST_ITEMS = 16


def shown(value: object, *, absent: str = "missing") -> str:
    """A decoded JSON value as JSON, short enough for a sentence; deep or large ones only by their kind.

    Args:
        value: what ``orjson.loads`` gave; others are shown as Python has them.
        absent: how None is called: a field that is not there, or an element that is ``null``.
    """
    # Names of tensors come here on every request's way.
    if isinstance(value, str) and len(value) <= _LONGEST - 2 and value.isidentifier():
        return f'"{value}"'
    if value is None:
        return absent
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list) and (len(value) > _MOST_ITEMS or any(isinstance(item, list | dict) for item in value)):
        return f"a list of {len(value)}"
    try:
        text = orjson.dumps(value).decode()
    except TypeError:
        # Integers beyond 64 bits and broken surrogates, which come from elsewhere than JSON.
        text = ascii(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
