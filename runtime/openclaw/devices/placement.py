"""Which device a task goes to. Pure.

With no device named, a GPU with memory of its own comes before one that shares the machine's, and that before the CPU;
NPUs come last, because few models run on them whole. Among those that are alike the least busy takes it: the fewest
tasks of this process and the least load; then the one with the most memory free.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from openclaw.devices.device import Device, Kind
from openclaw.errors import ConfigInvalid, DeviceUnavailable

Key = tuple[str, str, str, str | None]

_WORDS: dict[str, Kind | None] = {"auto": None, "gpu": "GPU", "npu": "NPU", "cpu": "CPU"}


@dataclass(frozen=True)
class Wish:
    """What was asked for: a device by its number, or one of a kind, or any."""

    number: int | None = None
    kind: Kind | None = None


def parse_wish(value: str | int) -> Wish:
    """Reads ``auto``, ``gpu``, ``npu``, ``cpu`` or a device's number. Raises ConfigInvalid."""
    text = str(value).strip().lower()
    if text in _WORDS:
        return Wish(kind=_WORDS[text])
    if isinstance(value, bool) or not re.fullmatch(r"[0-9]{1,4}", text):
        raise ConfigInvalid(f"device is {value!r}; allowed: {', '.join(_WORDS)}, or a number of `openclaw devices`")
    return Wish(number=int(text))


def choose(devices: Sequence[Device], wish: Wish, *, memory: int, reserved: Mapping[Key, Sequence[int]]) -> Device:
    """The device that a task should go to.

    Args:
        devices: what there is now.
        wish: what was asked for.
        memory: bytes that the task needs; 0: unknown.
        reserved: bytes of the tasks that this process has on each device already.

    Raises:
        DeviceUnavailable: none of those that were asked for can take it; says of each why.
    """
    if wish.number is not None:
        return _numbered(devices, wish.number, memory=memory, reserved=reserved)
    asked = [each for each in devices if wish.kind in (None, each.type)]
    if not asked:
        raise DeviceUnavailable(f"there is no {wish.kind or 'other device'} here; there is {_listed(devices)}")
    refusals = {each.key: refusal(each, memory, reserved.get(each.key, ())) for each in asked}
    fit = [each for each in asked if refusals[each.key] is None]
    if not fit:
        reasons = "; ".join(f"{each.title}: {refusals[each.key]}" for each in asked)
        raise DeviceUnavailable(f"no device can take it: {reasons}")
    return min(fit, key=lambda each: _preference(each, len(reserved.get(each.key, ()))))


def refusal(device: Device, memory: int, reserved: Sequence[int]) -> str | None:
    """Why a device cannot take a task of ``memory`` bytes; None if it can, as far as is known."""
    if device.obstacle:
        return device.obstacle
    free = free_bytes(device, reserved)
    if free is not None and free < memory:
        return f"{memory:,} bytes are needed and {free:,} are free"
    return None


def free_bytes(device: Device, reserved: Sequence[int]) -> int | None:
    """What is left for one more task: tasks that have not loaded yet are not seen in what the device says is free."""
    told = [device.memory_free, None if device.memory is None else max(0, device.memory - sum(reserved))]
    return min((each for each in told if each is not None), default=None)


def _numbered(devices: Sequence[Device], number: int, *, memory: int, reserved: Mapping[Key, Sequence[int]]) -> Device:
    found = next((each for each in devices if each.id == number), None)
    if found is None:
        raise DeviceUnavailable(f"there is no device {number}; there is {_listed(devices)}")
    why = refusal(found, memory, reserved.get(found.key, ()))
    if why is not None:
        raise DeviceUnavailable(f"{found.title} cannot take it: {why}")
    return found


def _preference(device: Device, tasks: int) -> tuple[int, float, int]:
    rank = {"GPU": 1 if device.integrated else 0, "CPU": 2, "NPU": 3}[device.type]
    return rank, tasks + (device.load or 0.0), -(device.memory_free or device.memory or 0)


def _listed(devices: Sequence[Device]) -> str:
    return ", ".join(each.title for each in devices) or "none"
