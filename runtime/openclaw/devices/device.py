"""What a device is: an immutable answer of the machine at one moment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

Kind = Literal["GPU", "NPU", "CPU"]


@dataclass(frozen=True)
class Route:
    """How onnxruntime reaches a kind of device.

    Attributes:
        providers: execution providers that serve it, the one to prefer first; none: onnxruntime cannot use it.
        install: a sentence that says what to install.
    """

    providers: tuple[str, ...]
    install: str


@dataclass(frozen=True, kw_only=True, repr=False)
class Device:
    """Something that can run models, as it was when it was looked at. Unknown numbers are None.

    It prints as ``{'type': 'GPU', 'vendor': 'AMD', 'memory': 17163091968}``; ``dict(device)`` has everything.

    Attributes:
        id: its number in the list; another list may number otherwise.
        type: GPU, NPU or CPU.
        vendor: who made it.
        name: what it is called.
        memory: bytes that models and their tensors can have at most.
        memory_free: bytes of them that nobody has.
        load: share of its time that it is busy, 0 to 1.
        integrated: whether its memory is the machine's.
        driver: of the kernel.
        address: where it is: on the PCI bus, or what the kernel calls it.
        uuid: of this very piece of hardware, where it tells.
        route: how onnxruntime reaches it.
        options: of the execution provider, that name this device and no other.
        environment: variables that must be set for the options to mean this device.
        cores: of a CPU, what this process is granted; may be a fraction.
        instructions: of a CPU, those that matter to inference.
        hindrance: why this process cannot use the device whatever is installed; None: nothing is in the way.
        installed: execution providers that the installed onnxruntime has.
        notes: what else to know: what could not be read, what to install to know more.
    """

    id: int = -1
    type: Kind
    vendor: str
    name: str
    memory: int | None = None
    memory_free: int | None = None
    load: float | None = None
    integrated: bool | None = None
    driver: str | None = None
    address: str
    uuid: str | None = None
    route: Route
    options: tuple[tuple[str, str], ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    cores: float | None = None
    instructions: tuple[str, ...] = ()
    hindrance: str | None = None
    installed: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str, str, str | None]:
        """What stays the same for as long as this piece of hardware is where it is."""
        return self.type, self.vendor, self.address, self.uuid

    @property
    def provider(self) -> str | None:
        """The execution provider that would run models on it; None if none of its own is installed."""
        return next((name for name in self.route.providers if name in self.installed), None)

    @property
    def obstacle(self) -> str | None:
        """Why no model can run on it now, and what to do; None if one can."""
        said = [self.hindrance] if self.hindrance else []
        if self.provider is None:
            said.append(self.route.install)
        return "; ".join(said) or None

    def keys(self) -> Iterator[str]:
        """The names of what :meth:`__getitem__` gives: as JSON has them, plain values only."""
        return iter(self._plain())

    def __getitem__(self, name: str) -> Any:
        return self._plain()[name]

    def __repr__(self) -> str:
        return repr({name: self[name] for name in ("type", "vendor", "memory")})

    @property
    def title(self) -> str:
        """What a sentence calls it."""
        name = self.name if self.name.startswith(self.vendor) else f"{self.vendor} {self.name}"
        return f"{self.type} {self.id} ({name} at {self.address})"

    def numbered(self, number: int) -> Device:
        """The same under another number."""
        return replace(self, id=number)

    def _plain(self) -> dict[str, Any]:
        told = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in ("route", "installed", "hindrance", "environment"):
            del told[name]
        return {
            **told,
            "options": dict(self.options),
            "instructions": list(self.instructions),
            "notes": list(self.notes),
            "provider": self.provider,
            "obstacle": self.obstacle,
        }
