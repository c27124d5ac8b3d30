"""AMD's GPUs, discrete and inside processors, as the driver amdgpu shows them.

Sources: Linux, Documentation/gpu/amdgpu/driver-misc.rst and thermal.rst (mem_info_*, gpu_busy_percent, product_name);
drivers/gpu/drm/amd/amdkfd/kfd_topology.c (``/sys/class/kfd``, the order in which HIP counts).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from openclaw.devices import routes
from openclaw.devices.device import Device
from openclaw.devices.pci import ACCELERATOR, DISPLAY, Function, functions, product_name
from openclaw.devices.tree import Folder, Machine
from openclaw.devices.visible import hidden_by, ordinals

VENDOR = 0x1002
_NODES = "sys/class/kfd/kfd/topology/nodes"
_HIDE = ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
_MOST_BYTES = 1 << 44

# LLVM, User Guide for AMDGPU Backend, "AMDGPU Processors": those that are inside a processor.
_INTEGRATED = {
    "gfx902", "gfx909", "gfx90c", "gfx1013", "gfx1033", "gfx1035", "gfx1036", "gfx1037", "gfx1103", "gfx1150",
    "gfx1151", "gfx1152", "gfx1153",
}  # fmt: skip


@dataclass(frozen=True)
class _Node:
    """One GPU that ROCm can use: where it is, of which family (``gfx1100``), and HIP's number; None: it is hidden."""

    address: str
    family: str
    uuid: str | None
    number: int | None = None


def find(machine: Machine) -> list[Device]:
    """All that are on the bus; those without ROCm's part of the driver cannot run models."""
    nodes = _nodes(machine)
    numbers = ordinals([node.uuid for node in nodes], *(machine.environ.get(name) for name in _HIDE))
    by_address = {node.address: replace(node, number=numbers.get(position)) for position, node in enumerate(nodes)}
    return [
        _device(machine, each, by_address.get(each.address))
        for each in functions(machine, [VENDOR])
        if each.base_class in (DISPLAY, ACCELERATOR)
    ]


def _nodes(machine: Machine) -> list[_Node]:
    """In HIP's order. NVIDIA's open driver has nodes here too, and so do processors."""
    topology = machine.folder(_NODES)
    found = []
    for name in topology.names(r"[0-9]+"):
        told = topology.inside(name).fields("properties", " ")
        numbers = {key: int(value) for key, value in told.items() if re.fullmatch("[0-9]{1,20}", value)}
        family = numbers.get("gfx_target_version", 0)
        if numbers.get("vendor_id") == VENDOR and family:
            place = numbers.get("location_id", 0)
            address = f"{numbers.get('domain', 0):04x}:{place >> 8 & 0xFF:02x}:{place >> 3 & 0x1F:02x}.{place & 7}"
            unique = numbers.get("unique_id")
            # As HIP writes it, which HIP_VISIBLE_DEVICES takes.
            found.append(_Node(address, _family(family), f"GPU-{unique:016x}" if unique else None))
    return found


def _family(version: int) -> str:
    """110003 -> gfx1103: decimal major and minor, and a stepping that is written as one hexadecimal digit."""
    return f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}"


def _device(machine: Machine, function: Function, node: _Node | None) -> Device:
    folder = function.folder
    integrated = None if node is None else node.family in _INTEGRATED
    memory, free = _memory(folder, integrated=bool(integrated))
    busy = folder.number("gpu_busy_percent", most=100)
    hindrance = _hindrance(machine, function, node)
    number = node.number if node else None
    if hindrance is None and number is None:
        hindrance = hidden_by(machine.environ, *_HIDE)
    named = folder.text("product_name") or product_name(machine, VENDOR, function.device)
    return Device(
        type="GPU",
        vendor="AMD",
        name=(named or f"GPU {VENDOR:04x}:{function.device:04x}")[:120],
        memory=memory,
        memory_free=free,
        load=None if busy is None else busy / 100,
        integrated=integrated,
        driver=function.driver,
        address=function.address,
        uuid=node.uuid if node else None,
        route=routes.MIGRAPHX,
        options=() if number is None else (("device_id", str(number)),),
        hindrance=hindrance,
        notes=(*([node.family] if node else []), *folder.notes),
    )


def _memory(folder: Folder, *, integrated: bool) -> tuple[int | None, int | None]:
    """Bytes, and how many of them are free; one inside a processor has the machine's beside its share."""
    kinds = ("vram", "gtt") if integrated else ("vram",)
    totals = [folder.number(f"mem_info_{kind}_total", most=_MOST_BYTES) for kind in kinds]
    used = [folder.number(f"mem_info_{kind}_used", most=_MOST_BYTES) for kind in kinds]
    if any(total is None for total in totals):
        return None, None
    total = sum(each or 0 for each in totals)
    taken = None if any(each is None for each in used) else sum(each or 0 for each in used)
    return total, None if taken is None else max(0, total - taken)


def _hindrance(machine: Machine, function: Function, node: _Node | None) -> str | None:
    if function.driver != "amdgpu":
        return f"{function.holder}; amdgpu is needed"
    if node is None:
        return "ROCm cannot use it: the driver lists it not under /sys/class/kfd"
    if not machine.folder("dev").exists("kfd"):
        return "this process is not granted it: there is no /dev/kfd"
    missing = [name for name in function.nodes if not machine.folder("dev").exists(name)]
    return f"this process is not granted it: there is no /dev/{missing[0]}" if missing else None
