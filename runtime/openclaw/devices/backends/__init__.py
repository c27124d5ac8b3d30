"""Where devices are found: a module for each family, behind one port.

A backend takes a machine and answers with the devices of its family; what it cannot find out it leaves unknown, with a
note, and it raises nothing whatever the machine's files say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from openclaw.devices.backends import accel, amd, ascend, coral, hailo, intel, jetson, nvidia, processor, rockchip
from openclaw.devices.device import Device
from openclaw.devices.tree import Machine

Backend = Callable[[Machine], Sequence[Device]]

BACKENDS: tuple[Backend, ...] = (
    nvidia.find,
    jetson.find,
    amd.find,
    intel.find,
    ascend.find,
    accel.find,
    rockchip.find,
    hailo.find,
    coral.find,
    processor.find,
)
"""All of them. Of devices that are alike, those of the first are listed first."""
