"""Google's Coral Edge TPU, on the PCI bus and on USB.

Sources: Linux, drivers/staging/gasket (until 5.13) and google/gasket-driver, ``status`` and ``pci_address`` of
``/sys/class/apex``; Coral, "Get started with the USB Accelerator", for its two USB numbers.
"""

from __future__ import annotations

from openclaw.devices import routes
from openclaw.devices.device import Device
from openclaw.devices.pci import Function, functions
from openclaw.devices.tree import Folder, Machine

VENDOR = 0x1AC1
_EDGE_TPU = 0x089A
_CLASS = "sys/class/apex"
_USB = "sys/bus/usb/devices"

# Before and after its firmware was loaded.
_USB_NUMBERS = {("1a6e", "089a"), ("18d1", "9302")}


def find(machine: Machine) -> list[Device]:
    """By address; no execution provider serves them, so they are shown and can run nothing here."""
    chips = machine.folder(_CLASS)
    nodes = {chips.inside(name).text("pci_address"): name for name in chips.names(r"apex_[0-9]+")}
    on_bus = [each for each in functions(machine, [VENDOR]) if each.device == _EDGE_TPU]
    sticks = machine.folder(_USB)
    plugged = [name for name in sticks.names(r"[0-9]+-[0-9.]+") if _is_stick(sticks.inside(name))]
    return [_on_bus(machine, each, nodes.get(each.address)) for each in on_bus] + [_stick(name) for name in plugged]


def _on_bus(machine: Machine, function: Function, node: str | None) -> Device:
    folder = machine.folder(f"{_CLASS}/{node}") if node else function.folder
    status = folder.text("status") if node else None
    hindrance = None if node else f"{function.holder}; install Coral's drivers gasket and apex"
    if status and status != "ALIVE":
        hindrance = f"its driver says that it is {status[:20]}; reset it"
    return Device(
        type="NPU",
        vendor="Google",
        name="Coral Edge TPU",
        integrated=False,
        driver=function.driver,
        address=function.address,
        route=routes.CORAL,
        hindrance=hindrance,
        notes=tuple(folder.notes),
    )


def _stick(name: str) -> Device:
    return Device(
        type="NPU",
        vendor="Google",
        name="Coral Edge TPU (USB)",
        integrated=False,
        address=f"usb {name}",
        route=routes.CORAL,
    )


def _is_stick(folder: Folder) -> bool:
    return (folder.text("idVendor"), folder.text("idProduct")) in _USB_NUMBERS
