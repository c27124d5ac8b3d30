"""The models of a server: found by name and version, loaded, replaced and unloaded while others are served."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from openclaw.config import ModelConfig
from openclaw.errors import (
    InvalidRequest,
    NoRoom,
    NotReady,
    OutOfMemory,
    OverBudget,
    StartupError,
    UnknownModel,
    Unsupported,
)
from openclaw.memory.accounting import Account, Level
from openclaw.memory.pool.choice import pool_of
from openclaw.memory.tiers import Tier
from openclaw.serving.batching.hop import HOP_SECONDS, measure_hop
from openclaw.serving.loading import Loaded
from openclaw.serving.residence import Residence
from openclaw.serving.served import Served
from openclaw.serving.telemetry import Telemetry

if TYPE_CHECKING:
    from openclaw.devices.assigning import Assignment

log = logging.getLogger(__name__)

FIRST_VERSION = "1"

Fetched = Callable[[ModelConfig], Awaitable[Loaded]]
"""Fetches, loads and warms up a model; raises StartupError."""


class Phase(Enum):
    """Where the server is in its life; only READY tells load balancers to send requests."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"


class State(Enum):
    """Where a model is in its life, in the words of the model repository extension."""

    LOADING = "LOADING"
    READY = "READY"
    UNAVAILABLE = "UNAVAILABLE"


@dataclass(slots=True)
class Entry:
    """A model that the server knows, whether it is served or not."""

    config: ModelConfig
    state: State = State.LOADING
    reason: str = ""
    served: Served | None = None


@dataclass(frozen=True, slots=True)
class Control:
    """What clients may load.

    Attributes:
        bring_up: does it.
        find: the configuration of a model that is known by name only; None where there is none.
    """

    bring_up: Fetched
    find: Callable[[str], ModelConfig | None]


class Repository:
    """Every model of one server process; used from its event loop.

    Attributes:
        phase: of the server.
        telemetry: where its models are counted.
        account: of the memory that models and requests take.
        pool: of buffers that come from it.
    """

    def __init__(
        self,
        models: Sequence[ModelConfig],
        telemetry: Telemetry,
        *,
        runs: int,
        spare: int = 0,
        patience: float,
        control: Control | None = None,
        account: Account | None = None,
        residence: Residence | None = None,
    ) -> None:
        """
        Args:
            models: to be served from the beginning.
            telemetry: where to count.
            runs: of each model at the same time.
            spare: runs of each that may share the cores of these.
            patience: seconds after which a run is taken to be stuck.
            control: what clients may load; None: nothing.
            account: grants memory; None: as much as is asked for.
            residence: keeps models within the memory that there is; None: all stay as they are.
        """
        self.phase = Phase.LOADING
        self.telemetry = telemetry
        self.account = Account() if account is None else account
        self.pool = pool_of(self.account, os.environ)
        telemetry.metrics.memory(self.account, self.pool.settle)
        telemetry.watch(self._longest_run)
        self._entries = {config.name: Entry(config) for config in models}
        self._runs, self._spare = runs, spare
        self._patience = patience
        self._control = control
        self._residence = residence
        self._hop = HOP_SECONDS
        self._executor = ThreadPoolExecutor(runs + spare, thread_name_prefix="inference")
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._retiring: set[asyncio.Task[None]] = set()
        self._devices: dict[str, Assignment] = {}
        self._lost: set[str] = set()
        self._watching: asyncio.Task[None] | None = None
        for config in models:
            telemetry.metrics.model(config.name).ready(False)

    @property
    def ready(self) -> bool:
        """Whether new requests should be sent here: not where a model's device is gone, while another server may do."""
        return self.phase is Phase.READY and not self._lost

    @property
    def draining(self) -> bool:
        """Whether the server is stopping: it still answers, and asks every client to hang up."""
        return self.phase is Phase.DRAINING

    @property
    def live(self) -> bool:
        """Whether no run of a model is stuck, in any process of the server: only a new process helps against one."""
        return self.telemetry.stalled() <= self._patience

    def _longest_run(self) -> float:
        return max((served.longest_run for served in self.served()), default=0.0)

    def names(self) -> tuple[str, ...]:
        """Every model."""
        return tuple(self._entries)

    def find(self, name: str, version: str | None = None) -> Served:
        """A model that answers; its only version where ``version`` is None. Raises UnknownModel or NotReady."""
        entry = self._entries.get(name)
        if entry is None:
            raise self._unknown(name)
        served = entry.served
        if served is None:
            raise NotReady(f"model {name!r} is {entry.state.value.lower()}{entry.reason and f': {entry.reason}'}")
        if version is not None and version != served.version:
            raise UnknownModel(f"model {name!r} has no version {version!r:.120}; it has: {served.version!r}")
        return served

    def is_ready(self, name: str, version: str | None = None) -> bool:
        """Whether a model should be sent inferences; raises UnknownModel."""
        try:
            self.find(name, version)
        except NotReady:
            return False
        return self.phase is Phase.READY and name not in self._lost

    def served(self) -> list[Served]:
        """Every model that answers."""
        return [entry.served for entry in self._entries.values() if entry.served]

    def index(self) -> list[tuple[str, str, str, str]]:
        """Name, version, state and its reason of every model."""
        return [
            (name, entry.served.version if entry.served else "", entry.state.value, entry.reason)
            for name, entry in self._entries.items()
        ]

    def put(self, loaded: Loaded) -> None:
        """Serves a model from now on; one of the same name answers what it was asked before, and goes."""
        name = loaded.config.name
        entry = self._entries.setdefault(name, Entry(loaded.config))
        before = entry.served
        version = str(int(before.version) + 1) if before else FIRST_VERSION
        metrics = self.telemetry.metrics.model(name)
        self._placed(name, loaded.model.device)
        entry.served = Served(
            loaded,
            version,
            metrics=metrics,
            executor=self._executor,
            runs=self._runs,
            spare=self._spare,
            hop=self._hop,
            pool=self.pool,
        )
        entry.state, entry.reason = State.READY, ""
        metrics.loaded(loaded.seconds)
        metrics.tier(loaded.tier)
        metrics.ready(self.ready)
        if self._residence:
            self._residence.admit(entry.served, loaded)
        else:
            with suppress(OverBudget):
                self.account.take(loaded.took, level=Level.WEIGHTS, model=name)
        if before:
            self._retire(before)

    def devices(self) -> dict[str, Assignment]:
        """By name of each model that is not on the CPU where it is."""
        return dict(self._devices)

    def lose(self, name: str, why: str) -> None:
        """Has no more requests sent here, because a model cannot answer any more until it is loaded anew."""
        if name not in self._devices or name in self._lost:
            return
        entry = self._entries[name]
        self._lost.add(name)
        entry.state, entry.reason = State.UNAVAILABLE, why
        self.telemetry.metrics.model(name).ready(False)
        log.error("%s cannot answer any more, and the server is not ready: %s", name, why)

    async def measure_hop(self) -> None:
        """Measures what a model must be quicker than to be run on the event loop."""
        self._hop = await measure_hop(self._executor)

    def open(self) -> None:
        """Tells load balancers to send requests, unless the server stops already."""
        if self.phase is Phase.LOADING:
            self.phase = Phase.READY
            for served in self.served():
                self.telemetry.metrics.model(served.name).ready(served.name not in self._lost)

    def drain(self) -> None:
        """Tells load balancers to stop; requests that still come are answered."""
        self.phase = Phase.DRAINING
        if self._watching:
            self._watching.cancel()
        for name in self._entries:
            self.telemetry.metrics.model(name).ready(False)

    async def load(self, name: str) -> None:
        """Loads a model, or loads it anew beside the version that serves, which it then replaces.

        Raises:
            Unsupported: clients may not.
            UnknownModel: there is nothing of this name to load.
            NoRoom: there is not enough memory.
            InvalidRequest: it cannot be loaded; what was served stays.
        """
        control = self._controlled()
        async with self._turns[name]:
            entry = self._entries.get(name)
            config = control.find(name) or (entry.config if entry else None)
            if config is None:
                raise UnknownModel(f"there is no model {name!r:.120} to load")
            entry = self._entries.setdefault(name, Entry(config))
            entry.state = entry.state if entry.served else State.LOADING
            try:
                self.put(await control.bring_up(config))
            except StartupError as error:
                self._failed(entry, error)
                refusal = NoRoom if isinstance(error, OutOfMemory) else InvalidRequest
                raise refusal(f"model {name!r} cannot be loaded: {error}") from error
            except BaseException as error:
                self._failed(entry, error)
                raise

    async def unload(self, name: str) -> None:
        """Takes a model out of service once what it was asked is answered. Raises Unsupported or UnknownModel."""
        self._controlled()
        async with self._turns[name]:
            entry = self._entries.get(name)
            if entry is None:
                raise self._unknown(name)
            served, entry.served = entry.served, None
            self._placed(name, None)
            entry.state, entry.reason = State.UNAVAILABLE, "unloaded"
            self.telemetry.metrics.model(name).ready(False)
            if served:
                await self._leave(served)
            self.telemetry.metrics.model(name).tier(Tier.EVICTED)
            log.info("unloaded %s", name)

    def _failed(self, entry: Entry, error: BaseException) -> None:
        if isinstance(error, StartupError):
            self.telemetry.metrics.model(entry.config.name).load_failed(error.reason)
        if entry.served is None:
            entry.state, entry.reason = State.UNAVAILABLE, str(error)

    def _unknown(self, name: str) -> UnknownModel:
        return UnknownModel(f"there is no model {name!r:.120}; served here: {', '.join(map(repr, self._entries))}")

    def _controlled(self) -> Control:
        if self._control is None:
            raise Unsupported(
                "clients may not load and unload models here; start the server with --model-control "
                "(server.modelControl) to allow it"
            )
        return self._control

    def _placed(self, name: str, device: Assignment | None) -> None:
        """Looks after a model's device from now on, and no more after the one that it had."""
        self._lost.discard(name)
        self._devices.pop(name, None)
        if device is None or device.on_cpu:
            return
        self._devices[name] = device
        if self._watching is None:
            # Nearly every server has its models on the CPU, which does not go.
            from openclaw.serving.devicewatch import watch_devices

            self._watching = asyncio.create_task(watch_devices(self))

    def _retire(self, served: Served) -> None:
        task = asyncio.create_task(self._leave(served))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _leave(self, served: Served) -> None:
        await served.retire()
        if self._residence:
            self._residence.dismiss(served)
