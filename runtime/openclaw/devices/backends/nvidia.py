"""NVIDIA's GPUs: on the PCI bus, in the driver's ``/proc/driver/nvidia``, and in NVML where it can be asked.

A container may see any subset of the three. Source: NVIDIA driver README, "The /proc File System Interface".
"""

from __future__ import annotations

from dataclasses import dataclass

from openclaw.devices import routes
from openclaw.devices.backends import nvml
from openclaw.devices.backends.jetson import is_tegra
from openclaw.devices.device import Device
from openclaw.devices.pci import ADDRESS, DISPLAY, Function, functions, product_name
from openclaw.devices.tree import Folder, Machine
from openclaw.devices.visible import hidden_by, ordinals

VENDOR = 0x10DE
_DRIVER = "proc/driver/nvidia"
_HIDES = "CUDA_VISIBLE_DEVICES"
_ORDER = ("CUDA_DEVICE_ORDER", "PCI_BUS_ID")


@dataclass(frozen=True)
class _Seen:
    """One GPU by what is known of it from each side."""

    address: str
    function: Function | None
    information: dict[str, str]
    reading: nvml.Reading | None

    @property
    def uuid(self) -> str | None:
        told = self.reading.uuid if self.reading else self.information.get("GPU UUID")
        # The driver writes question marks until the GPU was first used.
        return told if told and "?" not in told else None


def find(machine: Machine) -> list[Device]:
    """In the order of the bus, which CUDA is told to count in too: by itself it counts the fastest first."""
    answer = nvml.ask() if machine.is_this else nvml.Answer()
    seen = _seen(machine, answer)
    usable = [each for each in seen if _hindrance(machine, each) is None]
    numbers = ordinals([each.uuid for each in usable], machine.environ.get(_HIDES))
    devices = []
    for each in seen:
        number = numbers.get(usable.index(each)) if each in usable else None
        devices.append(_device(machine, each, number=number, why_not=answer.why_not))
    return devices


def _seen(machine: Machine, answer: nvml.Answer) -> list[_Seen]:
    on_bus = {each.address: each for each in functions(machine, [VENDOR]) if each.base_class == DISPLAY}
    gpus = machine.folder(f"{_DRIVER}/gpus")
    told = {address: gpus.inside(address).fields("information", ":") for address in gpus.names(ADDRESS)}
    readings = {each.address: each for each in answer.readings}
    addresses = {*on_bus, *told, *([] if is_tegra(machine) else readings)}
    return [
        _Seen(address, on_bus.get(address), told.get(address, {}), readings.get(address))
        for address in sorted(addresses)
    ]


def _hindrance(machine: Machine, seen: _Seen) -> str | None:
    if seen.reading:
        return None
    if not seen.information:
        if seen.function is None or seen.function.driver == "nvidia":
            return "this process is not granted it: the driver does not show it here"
        return f"{seen.function.holder}; install NVIDIA's driver"
    minor = seen.information.get("Device Minor", "")
    node = f"nvidia{minor}" if minor.isascii() and minor.isdigit() else "nvidiactl"
    if not machine.folder("dev").exists(node):
        return f"this process is not granted it: there is no /dev/{node}"
    return None


def _device(machine: Machine, seen: _Seen, *, number: int | None, why_not: str | None) -> Device:
    hindrance = _hindrance(machine, seen)
    folder = seen.function.folder if seen.function else Folder(machine.root)
    reading = seen.reading
    notes = [*folder.notes]
    if reading and reading.capability:
        notes.append("compute capability {}.{}".format(*reading.capability))
    if hindrance is None and reading is None:
        notes.append(why_not or "memory and load are unknown: only NVIDIA's management library tells them")
    if machine.environ.get(_ORDER[0], _ORDER[1]) != _ORDER[1]:
        notes.append(f"{_ORDER[0]} is {machine.environ[_ORDER[0]]}: CUDA may count otherwise; set it to {_ORDER[1]}")
    if hindrance is None and number is None:
        hindrance = hidden_by(machine.environ, _HIDES)
    return Device(
        type="GPU",
        vendor="NVIDIA",
        name=(reading and reading.name) or seen.information.get("Model") or _named(machine, seen.function),
        memory=reading.memory if reading else None,
        memory_free=reading.memory_free if reading else None,
        load=reading.load if reading else None,
        integrated=False,
        driver="nvidia" if seen.information or reading else folder.driver,
        address=seen.address,
        uuid=seen.uuid,
        route=routes.CUDA,
        options=() if number is None else (("device_id", str(number)),),
        environment=(_ORDER,),
        hindrance=hindrance,
        notes=tuple(notes),
    )


def _named(machine: Machine, function: Function | None) -> str:
    if function is None:
        return "GPU"
    return product_name(machine, VENDOR, function.device) or f"GPU {VENDOR:04x}:{function.device:04x}"
