"""Which devices a vendor's libraries will show to this process, and under which numbers. Pure.

A variable such as CUDA_VISIBLE_DEVICES lists devices by number or by the beginning of their UUID; what it leaves out is
hidden, and the order of the list is the new numbering. The list ends at the first entry that names no device. Sources:
CUDA C++ Programming Guide, "CUDA Environment Variables"; ROCm, "GPU isolation techniques".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def ordinals(uuids: Sequence[str | None], *variables: str | None) -> dict[int, int]:
    """Position in the machine -> number in this process, of the devices that are not hidden.

    Args:
        uuids: of all devices, in the order in which the library counts them.
        variables: values of the variables that hide some, each applied to what the one before left; None: not set.
    """
    left = list(range(len(uuids)))
    for value in variables:
        if value is not None:
            left = _chosen(left, uuids, value)
    return {position: number for number, position in enumerate(left)}


def hidden_by(environ: Mapping[str, str], *names: str) -> str:
    """A sentence that names the variables which hide a device."""
    values = ", ".join(f"{name}={environ[name]}" for name in names if name in environ)
    return f"it is hidden from this process by {values}"


def _chosen(left: Sequence[int], uuids: Sequence[str | None], value: str) -> list[int]:
    chosen: list[int] = []
    for word in (part.strip() for part in value.split(",")):
        position = _position(word, left, uuids)
        if position is None or position in chosen:
            return [] if position is not None else chosen
        chosen.append(position)
    return chosen


def _position(word: str, left: Sequence[int], uuids: Sequence[str | None]) -> int | None:
    if word.isascii() and word.isdigit():
        return left[int(word)] if len(word) < 6 and int(word) < len(left) else None
    if len(word) < 5:
        return None
    found = [each for each in left if (uuids[each] or "").lower().startswith(word.lower())]
    return found[0] if len(found) == 1 else None
