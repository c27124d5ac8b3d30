"""What NVIDIA's management library says, through its Python binding ``nvidia-ml-py``, where both are installed.

Sources: NVML API Reference Guide; the binding's ``pynvml.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from openclaw.devices.pci import normal_address


@dataclass(frozen=True)
class Reading:
    """One GPU; unknown is None. ``address`` as sysfs writes it, ``load`` 0 to 1, memory in bytes."""

    address: str
    name: str | None
    uuid: str | None
    memory: int | None
    memory_free: int | None
    load: float | None
    capability: tuple[int, int] | None


@dataclass(frozen=True)
class Answer:
    """All GPUs that the library shows to this process; ``why_not``: a sentence where it could not be asked."""

    readings: tuple[Reading, ...] = ()
    why_not: str | None = None


def ask() -> Answer:
    """Asks the library; whatever fails is told, and nothing raised."""
    try:
        import pynvml
    except ImportError:
        return Answer(why_not="memory and load are unknown: pip install nvidia-ml-py")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return Answer(why_not=f"memory and load are unknown: NVIDIA's management library says: {error}")
    try:
        return Answer(tuple(_readings(pynvml)))
    except pynvml.NVMLError as error:
        return Answer(why_not=f"memory and load are unknown: NVIDIA's management library says: {error}")
    finally:
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _readings(nvml: Any) -> list[Reading]:
    found = []
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            address = normal_address(_text(nvml.nvmlDeviceGetPciInfo(handle).busId))
        except nvml.NVMLError:  # it fell off the bus meanwhile, or is another container's
            continue
        found.append(_reading(nvml, handle, address))
    return found


def _reading(nvml: Any, handle: Any, address: str) -> Reading:
    def told(question: Callable[[Any], Any]) -> Any:
        # Each GPU answers what it can: one with the machine's memory has none of its own to tell of.
        try:
            return question(handle)
        except (nvml.NVMLError, UnicodeError):
            return None

    memory, busy = told(nvml.nvmlDeviceGetMemoryInfo), told(nvml.nvmlDeviceGetUtilizationRates)
    capability = told(nvml.nvmlDeviceGetCudaComputeCapability)
    return Reading(
        address=address,
        name=_text(told(nvml.nvmlDeviceGetName)) or None,
        uuid=_text(told(nvml.nvmlDeviceGetUUID)) or None,
        memory=int(memory.total) if memory else None,
        memory_free=int(memory.free) if memory else None,
        load=min(int(busy.gpu), 100) / 100 if busy else None,
        capability=(int(capability[0]), int(capability[1])) if capability else None,
    )


def _text(value: object) -> str:
    """A string, which older versions of the binding give as bytes."""
    return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value or "")
