"""The NPU inside Rockchip's chips under the vendor's driver, RKNPU; the mainline one is in ``accel``.

Sources: Rockchip's kernel, drivers/rknpu; its devfreq ``load`` says ``LOAD@FREQUENCYHz`` and keeps the last value
while the NPU sleeps, which ``runtime_status`` tells.
"""

from __future__ import annotations

import re

from openclaw.devices import routes
from openclaw.devices.device import Device
from openclaw.devices.memory import room_bytes, total_bytes
from openclaw.devices.tree import Machine

_DEVFREQ = "sys/class/devfreq"
_NPU = r"[0-9a-f]{1,16}\.npu"


def find(machine: Machine) -> list[Device]:
    """The one NPU of the chip, whatever its cores, or none elsewhere."""
    chip = _chip(machine)
    npus = machine.folder(_DEVFREQ).names(_NPU) or machine.folder("sys/bus/platform/drivers/RKNPU").names(_NPU)
    if not chip or not npus:
        return []
    notes: list[str] = []
    return [
        Device(
            type="NPU",
            vendor="Rockchip",
            name=f"{chip.upper()} NPU",
            memory=total_bytes(machine.root),
            memory_free=room_bytes(machine.root),
            load=_load(machine, npus[0], notes),
            integrated=True,
            driver="RKNPU",
            address=npus[0],
            route=routes.RK1808 if chip == "rk1808" else routes.ROCKCHIP,
            notes=tuple(notes),
        )
    ]


def _chip(machine: Machine) -> str | None:
    compatible = machine.folder("proc/device-tree").words("compatible")
    chips = [word.partition(",")[2] for word in compatible if word.startswith("rockchip,")]
    return next((chip[:20] for chip in chips if re.match(r"r[kv][0-9]", chip)), None)


def _load(machine: Machine, npu: str, notes: list[str]) -> float | None:
    folder = machine.folder(f"{_DEVFREQ}/{npu}")
    if folder.text("device/power/runtime_status") == "suspended":
        return 0.0
    cores = [int(share) for share in re.findall(r"Core[0-9]+: {0,4}([0-9]{1,3})%", _debug(machine))]
    if cores and max(cores) <= 100:
        return sum(cores) / len(cores) / 100
    told = folder.text("load")
    share = re.match(r"([0-9]{1,3})@", told or "")
    if told and not (share and int(share.group(1)) <= 100):
        notes.append(f"load says {told[:40]!r}, which cannot be true")
    return int(share.group(1)) / 100 if share and int(share.group(1)) <= 100 else None


def _debug(machine: Machine) -> str:
    """Of each core, for root alone, where debugfs is mounted."""
    return machine.folder("sys/kernel/debug/rknpu").text("load") or ""
