"""The CPU: what it is called, what it can, and how much of it this process really gets."""

from __future__ import annotations

from collections import Counter

from openclaw.devices import routes
from openclaw.devices.armcores import DESIGNERS, core_name
from openclaw.devices.cpu import count_cpus, read_grant
from openclaw.devices.device import Device
from openclaw.devices.instructions import parse_processor, read_instructions
from openclaw.devices.memory import room_bytes, total_bytes
from openclaw.devices.tree import Folder, Machine

_VENDORS = {
    "GenuineIntel": "Intel",
    "AuthenticAMD": "AMD",
    "HygonGenuine": "Hygon",
    "CentaurHauls": "Zhaoxin",
    "Shanghai": "Zhaoxin",
}

_MOST_CPUINFO = 1 << 22


def find(machine: Machine) -> list[Device]:
    """Always one: whatever its sockets, onnxruntime has one provider for all cores."""
    folder = machine.folder("")
    processors = _processors(folder)
    online = _online(folder, len(processors))
    grant = read_grant(machine.root, schedulable=None if machine.is_this else online)
    # Emulators of one process pass the machine's own files on: of x86, where the process runs on ARM.
    emulated = _is_arm(machine.architecture) and any("vendor_id" in each for each in processors)
    if emulated:
        folder.notes.append("it is emulated: /proc/cpuinfo tells of another CPU")
    name = f"{machine.architecture}, emulated" if emulated else _name(folder, processors)
    return [
        Device(
            type="CPU",
            vendor="ARM" if emulated else _vendor(processors),
            name=name[:120] or machine.architecture or "unknown",
            memory=total_bytes(machine.root),
            memory_free=room_bytes(machine.root),
            load=_load(folder, online),
            address="cpu",
            route=routes.CPU,
            cores=grant.cores,
            instructions=tuple(sorted(read_instructions(machine.root))),
            notes=tuple(folder.notes),
        )
    ]


def _processors(folder: Folder) -> list[dict[str, str]]:
    """What ``/proc/cpuinfo`` says of each logical processor."""
    found: list[dict[str, str]] = []
    for line in folder.lines("proc/cpuinfo", _MOST_CPUINFO):
        key, separator, value = line.partition(":")
        if not separator:
            continue
        if key.strip() == "processor":
            found.append({})
        if found:
            found[-1][key.strip()] = value.strip()
    return found


def _online(folder: Folder, told: int) -> int:
    """Processors that run; some kernels for boards hide all but the first from ``/proc/cpuinfo``."""
    return count_cpus(folder.text("sys/devices/system/cpu/online") or "") or told or 1


def _load(folder: Folder, online: int) -> float | None:
    """The share of all processors that was wanted in the last minute, proc_loadavg(5)."""
    try:
        wanted = float((folder.text("proc/loadavg") or "").split(" ")[0])
    except ValueError:
        return None
    return min(wanted / online, 1.0) if 0 <= wanted < float("inf") else None


def _vendor(processors: list[dict[str, str]]) -> str:
    first = processors[0] if processors else {}
    if "vendor_id" in first:
        return _VENDORS.get(first["vendor_id"], first["vendor_id"][:40] or "unknown")
    if _of_arm(processors):
        return DESIGNERS.get(_hexadecimal(first.get("CPU implementer", "")), "ARM")
    return "unknown"


def _name(folder: Folder, processors: list[dict[str, str]]) -> str:
    told = parse_processor("\n".join(folder.lines("proc/cpuinfo", _MOST_CPUINFO)))
    if not _of_arm(processors):
        return told
    kinds = Counter(
        core_name(_hexadecimal(each["CPU implementer"]), _hexadecimal(each.get("CPU part", "")))
        for each in processors
        if "CPU implementer" in each
    )
    cores = " + ".join(f"{count}x {name}" for name, count in kinds.most_common())
    board = (folder.words("proc/device-tree/model") or [told])[0]
    return f"{cores} ({board[:80]})" if board else cores


def _is_arm(architecture: str) -> bool:
    return architecture.startswith(("aarch64", "arm"))


def _of_arm(processors: list[dict[str, str]]) -> bool:
    return any("CPU implementer" in each for each in processors)


def _hexadecimal(text: str) -> int:
    try:
        return int(text, 16)
    except ValueError:
        return -1
