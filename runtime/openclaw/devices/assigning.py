"""``openclaw.DeviceManager``: what devices there are, and which of them does what.

manager = openclaw.DeviceManager()
manager.list_devices()                       # [{'type': 'GPU', 'vendor': 'AMD', 'memory': 17163091968}, ...]
assignment = manager.assign_task("inference", device_id=0)
model = openclaw.load("model.onnx", device=assignment)
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TypeVar

from openclaw.devices.cpu import default_threads
from openclaw.devices.device import Device
from openclaw.devices.inventory import THIS_MACHINE, read_devices
from openclaw.devices.placement import Key, Wish, choose, parse_wish, refusal
from openclaw.devices.providers import CPU_PROVIDER
from openclaw.errors import ConfigInvalid, DeviceUnavailable

T = TypeVar("T")

TASKS = ("inference",)


@dataclass(frozen=True, eq=False, kw_only=True)
class Assignment:
    """A task that has a device, for as long as this object lives: ``openclaw.load`` keeps it with the model.

    Attributes:
        task: what is to be done.
        device: where, as it was when it was assigned.
        threads: of the CPU, for one inference.
        memory: bytes that the task was said to need; 0: unknown.
        wish: what was asked for. Where no number was, a device that vanishes is replaced by the next.
    """

    task: str
    device: Device
    threads: int
    memory: int
    wish: Wish
    manager: DeviceManager = field(repr=False)

    @property
    def provider(self) -> str:
        """The execution provider that runs it."""
        return self.device.provider or CPU_PROVIDER

    @property
    def on_cpu(self) -> bool:
        """Whether it runs where everything runs that was not assigned."""
        return self.provider == CPU_PROVIDER

    @property
    def providers(self) -> list[str | tuple[str, dict[str, str]]]:
        """As ``onnxruntime.InferenceSession`` takes them; the CPU runs what the device's provider cannot."""
        if self.on_cpu:
            return [CPU_PROVIDER]
        return [(self.provider, dict(self.device.options)), CPU_PROVIDER]


class DeviceManager:
    """Lists devices and assigns tasks to them; what it says is what the machine says at that moment."""

    def __init__(self, root: str | Path = THIS_MACHINE, *, installed: frozenset[str] | None = None) -> None:
        """
        Args:
            root: folder that holds ``sys``, ``proc`` and ``dev``; that of another machine can be looked at too.
            installed: execution providers that there are, by default those of the installed onnxruntime.
        """
        self._root = Path(root)
        self._installed = installed
        self._assigned: weakref.WeakSet[Assignment] = weakref.WeakSet()

    def list_devices(self) -> list[Device]:
        """Everything that can run models or could, GPUs first and the CPU last; see :class:`Device`."""
        return read_devices(self._root, installed=self._installed)

    def assign_task(
        self, task: str, device_id: int | None = None, *, memory: int = 0, kind: str = "auto"
    ) -> Assignment:
        """Assigns a task to a device, or to the one that suits best.

        Args:
            task: ``inference``.
            device_id: the device's number in :meth:`list_devices`; None: whichever suits best.
            memory: bytes that the task will need, as far as is known; a device with less is not taken.
            kind: with no number, ``gpu``, ``npu`` or ``cpu`` to take one of these only, or ``auto``.

        Raises:
            ConfigInvalid: there is no such task, or the device is not named as devices are.
            DeviceUnavailable: the device is not there, or cannot take the task; says why and what to do.
        """
        if task not in TASKS:
            raise ConfigInvalid(f"task is {task!r}; allowed: {', '.join(TASKS)}")
        if isinstance(memory, bool) or not isinstance(memory, int) or memory < 0:
            raise ConfigInvalid(f"memory is {memory!r}; a whole number of bytes is needed")
        wish = parse_wish(kind if device_id is None else device_id)
        return self._assign(task, wish, memory=memory, without=())

    def confirm(self, assignment: Assignment, without: tuple[Key, ...] = ()) -> Assignment:
        """The assignment if its device is still there; else another, where no device was named.

        Args:
            assignment: of this manager.
            without: devices that were tried already.

        Raises:
            DeviceUnavailable: the device is gone, or none is left.
        """
        why = loss(assignment, self.list_devices())
        if why is None and assignment.device.key not in without:
            return assignment
        if assignment.wish.number is not None:
            raise DeviceUnavailable(why or f"{assignment.device.title} was tried already")
        return self._assign(assignment.task, assignment.wish, memory=assignment.memory, without=without)

    def _assign(self, task: str, wish: Wish, *, memory: int, without: tuple[Key, ...]) -> Assignment:
        devices = self.list_devices()
        reserved: dict[Key, list[int]] = {}
        for each in self._assigned:
            reserved.setdefault(each.device.key, []).append(each.memory)
        left = [each for each in devices if each.key not in without]
        device = choose(left, wish, memory=memory, reserved=reserved)
        cores = next((each.cores for each in devices if each.type == "CPU" and each.cores), 1.0)
        made = Assignment(
            task=task, device=device, threads=default_threads(cores), memory=memory, wish=wish, manager=self
        )
        self._assigned.add(made)
        return made


def loss(assignment: Assignment, devices: Sequence[Device]) -> str | None:
    """Why a task cannot go on where it was assigned; None while it can.

    Args:
        assignment: of the task.
        devices: what its manager lists now.
    """
    device = assignment.device
    now = next((each for each in devices if each.key == device.key), None)
    if now is not None and refusal(now, 0, ()) is None:
        return None
    gone = f"cannot be used any more: {now.obstacle}" if now else "is gone; list the devices again"
    return f"{device.title} was there when the task was assigned, and {gone}"


@cache
def shared_manager() -> DeviceManager:
    """The one that a process uses for whatever names no manager of its own, so that its tasks are spread."""
    return DeviceManager()


def assigned(device: Assignment | str | int, *, memory: int = 0) -> Assignment:
    """The assignment itself, or one to what a word or number names. Raises StartupError."""
    if isinstance(device, Assignment):
        return device
    wish = parse_wish(device)
    return shared_manager().assign_task("inference", wish.number, memory=memory, kind=(wish.kind or "auto").lower())


def carried_out(assignment: Assignment, begin: Callable[[Assignment], T]) -> T:
    """Begins a task where it was assigned; where no device was named and it fails, on the next.

    Args:
        assignment: of the task.
        begin: takes the assignment, and raises DeviceUnavailable where its device will not do.

    Raises:
        DeviceUnavailable: no device is left; says what was in the way of the last.
        Exception: whatever else ``begin`` raises.
    """
    tried: tuple[Key, ...] = ()
    failure: DeviceUnavailable | None = None
    while True:
        try:
            assignment = assignment.manager.confirm(assignment, tried)
        except DeviceUnavailable as none_left:
            raise failure or none_left from None
        try:
            return begin(assignment)
        except DeviceUnavailable as error:
            if assignment.wish.number is not None:
                raise
            failure, tried = error, (*tried, assignment.device.key)
