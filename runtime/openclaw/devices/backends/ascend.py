"""Huawei's Ascend NPUs: on the PCI bus, and as ``/dev/davinciN`` once the driver has them.

Memory and load are told by ``npu-smi`` alone. Sources: Ascend documentation, "Mounting devices" (the device files);
the PCI numbers as device plugins know them.
"""

from __future__ import annotations

from openclaw.devices import routes
from openclaw.devices.device import Device
from openclaw.devices.pci import ACCELERATOR, Function, functions
from openclaw.devices.tree import Machine
from openclaw.devices.visible import hidden_by, ordinals

VENDOR = 0x19E5
_HIDES = "ASCEND_RT_VISIBLE_DEVICES"
_MODELS = {0xD100: "Ascend 310", 0xD500: "Ascend 310P", 0xD801: "Ascend 910", 0xD802: "Ascend 910B"}
_NOTE = "memory and load are unknown: npu-smi tells them"


def find(machine: Machine) -> list[Device]:
    """One for each device file, since a card may carry several chips; else those on the bus, without a driver."""
    on_bus = [each for each in functions(machine, [VENDOR]) if each.base_class == ACCELERATOR or each.device in _MODELS]
    chips = machine.folder("dev").names(r"davinci[0-9]+")
    if not chips:
        return [_driverless(each) for each in on_bus]
    models = {_MODELS.get(each.device, "Ascend NPU") for each in on_bus}
    name = models.pop() if len(models) == 1 else "Ascend NPU"
    version = machine.folder("usr/local/Ascend/driver").fields("version.info").get("Version")
    numbers = ordinals([None] * len(chips), machine.environ.get(_HIDES))
    managed = machine.folder("dev").exists("davinci_manager")
    devices = []
    for position, chip in enumerate(chips):
        hindrance = None if managed else "this process is not granted it: there is no /dev/davinci_manager"
        if hindrance is None and position not in numbers:
            hindrance = hidden_by(machine.environ, _HIDES)
        devices.append(
            Device(
                type="NPU",
                vendor="Huawei",
                name=name,
                integrated=False,
                driver=f"davinci {version}" if version else "davinci",
                address=chip,
                route=routes.CANN,
                options=(("device_id", str(numbers[position])),) if position in numbers else (),
                hindrance=hindrance,
                notes=(_NOTE,),
            )
        )
    return devices


def _driverless(function: Function) -> Device:
    return Device(
        type="NPU",
        vendor="Huawei",
        name=_MODELS.get(function.device, f"Ascend NPU {VENDOR:04x}:{function.device:04x}"),
        integrated=False,
        driver=function.driver,
        address=function.address,
        route=routes.CANN,
        hindrance="there is no /dev/davinci for it: install the Ascend driver, or grant this process the device",
        notes=tuple(function.folder.notes),
    )
