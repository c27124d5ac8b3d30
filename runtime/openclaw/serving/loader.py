"""Brings models up on threads, while the event loop answers or the rest of the server is imported."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from openclaw.config import ModelConfig, ServerConfig
from openclaw.devices.cpu import read_grant
from openclaw.devices.memory import anonymous_bytes, room_bytes
from openclaw.errors import CannotMap, OutOfMemory
from openclaw.execute.engines import OWN, named_by
from openclaw.execute.threads import threads_of
from openclaw.graph.weights import read_weights
from openclaw.graph.wire import MalformedError
from openclaw.memory.budget import budget_of, for_weights
from openclaw.memory.tiers import Basis, Footprint, Placing, Shortage, Tier, placing
from openclaw.serving.loading import Loaded, check_room, load, load_mapped, measured, reload
from openclaw.serving.threads import in_thread
from openclaw.storage.cache import default_folder
from openclaw.storage.fetch import fetch_model
from openclaw.storage.prepared import form_of
from openclaw.storage.uri import parse

if TYPE_CHECKING:
    from openclaw.storage.mapped import MappedForms


@dataclass(frozen=True, slots=True)
class Size:
    """Of a model file.

    Attributes:
        weights: bytes that can be mapped; 0: the model cannot be mapped here.
        small: bytes of the rest.
    """

    weights: int
    small: int

    @property
    def all(self) -> int:
        """What its weights take, packed."""
        return self.weights + self.small

    def footprint(self, name: str, *, copies: int = 1) -> Footprint:
        """What a model of this size is taken to need before it was ever opened.

        Args:
            name: the model's.
            copies: of the packed weights, each in a process of its own; mapped ones are shared.
        """
        return Footprint(name, packed=copies * self.all, mapped=self.small if self.weights else None)


@dataclass(frozen=True, slots=True)
class Found:
    """A model's file, and what is in it."""

    path: Path
    size: Size


class Loader:
    """Fetches, loads and warms up models as a server's configuration has it.

    Args:
        config: the server's.
        cache_dir: where fetched files are kept.

    Attributes:
        began: when it was made, by ``time.perf_counter()``.
    """

    def __init__(self, config: ServerConfig, cache_dir: Path) -> None:
        self.began = time.perf_counter()
        self._config = config
        self._cache_dir = cache_dir
        self._made: MappedForms | None = None
        self._found: dict[str, Found] = {}

    def budget(self) -> int | None:
        """Bytes that models and requests may take now, by the setting and by what the kernel grants; None: no bound."""
        return budget_of(self._config.server.memory_budget_bytes, read_grant().memory_bytes)

    @property
    def asked(self) -> bool:
        """Whether there is a budget because the user asked for one."""
        return self._config.server.memory_budget_bytes is not None

    async def find(self, model: ModelConfig) -> Found:
        """The model's file, brought here if it is not; raises StartupError."""
        path = await fetch_model(model, self._cache_dir)
        found = self._found[model.name] = Found(path, await in_thread(self._size, model, path))
        return found

    def find_local(self, model: ModelConfig) -> Found:
        """The same of one whose URI is a file."""
        path = Path(parse(model.uri).path)
        return Found(path, self._size(model, path))

    def found(self, name: str) -> Found:
        """What :meth:`find` found last."""
        return self._found[name]

    async def bring_up(self, model: ModelConfig) -> Loaded:
        """A model that is ready to answer, with all memory to itself; raises StartupError."""
        return await in_thread(self._bring_up, model, await self.find(model))

    def _bring_up(self, model: ModelConfig, found: Found) -> Loaded:
        return self.open_placed(model, found, self.place(found.size.footprint(model.name)))

    def place(self, wanted: Footprint, others: Sequence[Footprint] = ()) -> Placing:
        """Where a model goes that nobody gives up memory for.

        Args:
            wanted: it.
            others: that have memory already, and keep it.

        Raises:
            OutOfMemory: it does not fit into the budget that was asked for. Without one, the budget rests on a guess
                of what else needs memory, and the model is taken to fit.
        """
        budget = self.budget()
        weights = None if budget is None else for_weights(budget)
        place = placing(wanted, others, budget=weights, now=0.0, enforced=self.asked)
        if isinstance(place, Shortage):
            raise too_small(wanted.name, place.needed, budget=budget or 0)
        return place

    def open_placed(self, model: ModelConfig, found: Found, place: Placing) -> Loaded:
        """Opens it for the first time; blocks. Unless it is taken to fit, it may be mapped where there is no memory to
        pack it. Raises StartupError.
        """
        open_ = self.open if place.basis is Basis.TRUST else self.open_as_it_fits
        return open_(model, found, place.tier)

    def _size(self, model: ModelConfig, path: Path) -> Size:
        if self.budget() is None:
            return Size(0, path.stat().st_size)
        file = self._file(model, path)
        try:
            weights = read_weights(file)
        except (OSError, MalformedError):
            return Size(0, path.stat().st_size)  # loading it finds the words
        if self._config.server.device not in (None, "cpu"):
            return Size(0, 0)  # its weights are in the device's memory
        mappable = named_by(file) == OWN
        return Size(weights.large, weights.small) if mappable else Size(0, weights.large + weights.small)

    def open_as_it_fits(self, model: ModelConfig, found: Found, tier: Tier) -> Loaded:
        """Opens it in this tier, or mapped where there is no memory to pack it; blocks. Raises StartupError."""
        if tier is Tier.PACKED:
            try:
                check_room(self._file(model, found.path), room_bytes())
                return self.open(model, found, tier)
            except OutOfMemory:
                if not found.size.weights:
                    raise
        try:
            return self.open(model, found, Tier.MAPPED)
        except CannotMap as error:
            raise OutOfMemory(f"there is no memory to have its weights packed, and {error}") from error

    def open(self, model: ModelConfig, found: Found, tier: Tier, *, again: bool = False) -> Loaded:
        """Opens a model in a tier; blocks.

        Args:
            model: its configuration.
            found: its file.
            tier: packed or mapped.
            again: whether it answered before, so that it need not be warmed up.

        Raises:
            StartupError: it cannot be loaded, or fails.
            CannotMap: it cannot be mapped.
        """
        threads, device = threads_of(self._config), self._config.server.device
        before = anonymous_bytes()
        if tier is Tier.MAPPED:
            file = self._file(model, found.path)
            loaded = load_mapped(model, file, self._forms.form_of(file).path, threads=threads, warm=not again)
        elif again:
            file = self._file(model, found.path)
            check_room(file, room_bytes())
            loaded = reload(model, self._quickest(file, found.size), threads=threads, device=device)
        else:
            loaded = load(model, found.path, threads=threads, device=device)
        took = max(0, anonymous_bytes() - before)
        return replace(loaded, took=took, warmed=max(0, took - found.size.all))

    def _quickest(self, file: Path, size: Size) -> Path:
        """What packs in the least time: weights that need not be read into memory before they are laid out anew."""
        try:
            return self._forms.form_of(file).path if size.weights else file
        except CannotMap:
            return file

    def _file(self, model: ModelConfig, path: Path) -> Path:
        """The form that was prepared of it, where there is one."""
        return form_of(model.prepared, path) or path

    @property
    def _forms(self) -> MappedForms:
        # Most servers need none.
        from openclaw.storage.mapped import MappedForms

        self._made = self._made or MappedForms(self._cache_dir)
        return self._made


def too_small(name: str, needed: int, *, budget: int) -> OutOfMemory:
    """The error where a budget is too small for a model whatever else happens."""
    return OutOfMemory(
        f"model {name!r} takes at least {needed:,} bytes of memory, and the budget is {budget:,}, of which "
        f"{budget - for_weights(budget):,} are kept for requests; raise the memory limit, or --memory-budget "
        "(server.memoryBudgetBytes) if it is set"
    )


def load_local(config: ServerConfig, *, copies: int = 1) -> list[Loaded]:
    """Loads and measures every model of a server, all of them local files by now, each in the tier there is room for.

    Args:
        config: the server's.
        copies: processes that do so on the same memory.

    Raises:
        StartupError: one cannot be loaded.
    """
    loader = Loader(config, default_folder())
    placed: list[Footprint] = []
    loaded = []
    for model in config.all_models:
        found = loader.find_local(model)
        wanted = found.size.footprint(model.name, copies=copies)
        place = loader.place(wanted, placed)
        placed.append(replace(wanted, tier=place.tier, pinned=True))
        loaded.append(measured(loader.open_placed(model, found, place)))
    return loaded
