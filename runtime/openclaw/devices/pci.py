"""What is on the PCI bus: sysfs has a folder for every function (Linux: Documentation/PCI/sysfs-pci.rst)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from openclaw.devices.tree import Folder, Machine, printable

BUS = "sys/bus/pci/devices"
ADDRESS = r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]"

NAME_LISTS = ("usr/share/misc/pci.ids", "usr/share/hwdata/pci.ids")

# Classes of the PCI Code and ID Assignment Specification, without the programming interface.
DISPLAY = 0x03
ACCELERATOR = 0x12


@dataclass(frozen=True)
class Function:
    """One function of a device on the bus; ``folder`` has its files."""

    address: str
    vendor: int
    device: int
    base_class: int
    driver: str | None
    folder: Folder

    @property
    def holder(self) -> str:
        """Who has it, to begin a sentence with."""
        return f"the driver {self.driver} has it" if self.driver else "no driver has it"

    @property
    def nodes(self) -> list[str]:
        """Its device files, relative to ``/dev``: of rendering, and of accelerating."""
        rendering = [f"dri/{name}" for name in self.folder.inside("drm").names(r"renderD[0-9]+")]
        return rendering + [f"accel/{name}" for name in self.folder.inside("accel").names(r"accel[0-9]+")]

    def bar_bytes(self, number: int) -> int | None:
        """The size of a base address register: a window into its memory, at most as large as that."""
        lines = self.folder.lines("resource")
        if len(lines) <= number:
            return None
        try:
            start, end, _flags = (int(word, 16) for word in lines[number].split())
        except ValueError:
            return None
        return end - start + 1 if 0 < start < end < 1 << 64 else None


def functions(machine: Machine, vendors: Iterable[int]) -> list[Function]:
    """Everything of some vendors that is on the bus, by address."""
    wanted = set(vendors)
    bus = machine.folder(BUS)
    # Hexadecimal and of one width: they sort as text.
    found = [function(machine, address) for address in sorted(bus.names(ADDRESS))]
    return [each for each in found if each.vendor in wanted]


def function(machine: Machine, address: str) -> Function:
    """What is at an address; numbers that cannot be read are 0."""
    folder = machine.folder(f"{BUS}/{address}")
    return Function(
        address,
        folder.number("vendor", most=0xFFFF) or 0,
        folder.number("device", most=0xFFFF) or 0,
        (folder.number("class", most=0xFFFFFF) or 0) >> 16,
        folder.driver,
        folder,
    )


def normal_address(text: str) -> str:
    """An address with the domain as Linux writes it, four digits at least: NVML writes eight."""
    domain, _, rest = text.strip().lower().partition(":")
    try:
        return f"{int(domain, 16):04x}:{rest}"
    except ValueError:
        return text


def product_name(machine: Machine, vendor: int, device: int) -> str | None:
    """What the list of PCI IDs calls a device (pciutils, pci.ids(5)); None where no list is installed or has it.

    Of ``Navi 31 [Radeon RX 7900 XTX]`` the name in brackets is what is written on the box.
    """
    for path in NAME_LISTS:
        try:
            text = (machine.root / path).read_text(encoding="utf-8", errors="replace")
        except (OSError, ValueError):
            continue
        section = re.search(rf"^{vendor:04x}  .*\n((?:[\t#].*\n|\n)*)", text, re.MULTILINE)
        named = re.search(rf"^\t{device:04x}  (.+)$", section.group(1), re.MULTILINE) if section else None
        if named:
            boxed = re.search(r"\[(.+)\]", named.group(1))
            return printable(boxed.group(1) if boxed else named.group(1))[:120]
    return None
