"""All devices of a machine, of whatever vendor, in one list."""

from __future__ import annotations

import os
import platform
from dataclasses import replace
from pathlib import Path

from openclaw.devices.backends import BACKENDS
from openclaw.devices.device import Device
from openclaw.devices.providers import PLUGINS, plugin_of
from openclaw.devices.tree import Machine

THIS_MACHINE = Path("/")

_ORDER = ("GPU", "NPU", "CPU")


def read_devices(root: Path = THIS_MACHINE, *, installed: frozenset[str] | None = None) -> list[Device]:
    """Looks at the machine now: GPUs first, those with memory of their own before others, then NPUs, then the CPU.

    Args:
        root: folder that holds ``sys``, ``proc`` and ``dev``; of another machine's files nothing is hidden.
        installed: execution providers that there are, by default those of the installed onnxruntime.
    """
    this = root == THIS_MACHINE
    machine = Machine(root, os.environ, platform.machine()) if this else Machine(root)
    providers = installed_providers() if installed is None else installed
    found = [replace(_sane(each), installed=providers) for backend in BACKENDS for each in backend(machine)]
    once = {each.key: each for each in reversed(found)}
    listed = [each for each in found if once[each.key] is each]
    listed.sort(key=lambda each: (_ORDER.index(each.type), each.integrated is True))
    return [each.numbered(number) for number, each in enumerate(listed)]


def installed_providers() -> frozenset[str]:
    """The execution providers of the installed onnxruntime and of plugins beside it; none if it is not installed."""
    try:
        import onnxruntime
    except ImportError:
        return frozenset()
    plugged = {provider for provider in PLUGINS if plugin_of(provider)}
    return frozenset({*onnxruntime.get_available_providers(), *plugged})


def _sane(device: Device) -> Device:
    """What two files say need not agree: no memory at all is memory unknown, and no more is free than there is."""
    if device.memory == 0:
        said = "it says that it has no memory, which cannot be true"
        return replace(device, memory=None, memory_free=None, notes=(*device.notes, said))
    if device.memory is None or device.memory_free is None:
        return device
    return replace(device, memory_free=min(device.memory_free, device.memory))
