"""Intel's GPUs under the drivers i915 and xe, discrete and inside processors.

How busy they are is told by performance counters alone, not by files. Sources: Linux,
drivers/gpu/drm/i915/i915_sysfs.c, drivers/gpu/drm/xe; igt-gpu-tools, tests/intel/xe_sysfs_tile.c; OpenVINO, "GPU
Device" (the processor's own is GPU.0, the others follow).
"""

from __future__ import annotations

from openclaw.devices import routes
from openclaw.devices.device import Device
from openclaw.devices.memory import room_bytes, total_bytes
from openclaw.devices.pci import DISPLAY, Function, functions, product_name
from openclaw.devices.tree import Machine

VENDOR = 0x8086
_DRIVERS = ("i915", "xe")
_INTEGRATED_AT = "0000:00:02.0"
_LOCAL_MEMORY_BAR = 2
_SMALL_WINDOW = 256 << 20
_MOST_BYTES = 1 << 44


def find(machine: Machine) -> list[Device]:
    """The processor's own first, then by address."""
    on_bus = [each for each in functions(machine, [VENDOR]) if each.base_class == DISPLAY]
    on_bus.sort(key=lambda each: each.address != _INTEGRATED_AT)
    usable = [each.address for each in on_bus if _hindrance(machine, each) is None]
    return [_device(machine, each, usable) for each in on_bus]


def _device(machine: Machine, function: Function, usable: list[str]) -> Device:
    folder = function.folder
    integrated = function.address == _INTEGRATED_AT
    known = product_name(machine, VENDOR, function.device)
    return Device(
        type="GPU",
        vendor="Intel",
        name=known or f"GPU {VENDOR:04x}:{function.device:04x}",
        memory=total_bytes(machine.root) if integrated else _local_memory(function),
        memory_free=room_bytes(machine.root) if integrated else None,
        integrated=integrated,
        driver=function.driver,
        address=function.address,
        route=routes.OPENVINO,
        options=(("device_type", f"GPU.{usable.index(function.address)}"),) if function.address in usable else (),
        hindrance=_hindrance(machine, function),
        notes=tuple(folder.notes),
    )


def _local_memory(function: Function) -> int | None:
    folder = function.folder
    tiles = [
        folder.number(f"{tile}/{place}physical_vram_size_bytes", most=_MOST_BYTES)
        for tile in folder.names(r"tile[0-9]+")
        for place in ("", "memory/")
        if folder.exists(f"{tile}/{place}physical_vram_size_bytes")
    ]
    if tiles:
        return None if any(each is None for each in tiles) else sum(each or 0 for each in tiles)
    cards = [f"drm/{card}/" for card in folder.inside("drm").names(r"card[0-9]+")]
    for place in ("", *cards):
        if folder.exists(f"{place}lmem_total_bytes"):
            return folder.number(f"{place}lmem_total_bytes", most=_MOST_BYTES)
    # With resizable BAR the window shows all of the memory; without it, a part that says nothing.
    window = function.bar_bytes(_LOCAL_MEMORY_BAR)
    if window is None or window > _MOST_BYTES:
        return None
    if window <= _SMALL_WINDOW:
        folder.notes.append("its memory is unknown: the driver does not tell, and resizable BAR is off")
        return None
    return window


def _hindrance(machine: Machine, function: Function) -> str | None:
    if function.driver not in _DRIVERS:
        return f"{function.holder}; i915 or xe is needed"
    missing = [name for name in function.nodes if not machine.folder("dev").exists(name)]
    if missing or not function.nodes:
        return f"this process is not granted it: there is no /dev/{(missing or ['dri'])[0]}"
    return None
