"""Which models a server process has, and what each takes of its memory: the bookkeeping of :mod:`.residence`.

Nothing here opens a model or evicts one. What is to be done is decided in ``memory.tiers``, which is given what is
counted here.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING

from openclaw.config import ModelConfig
from openclaw.errors import OverBudget
from openclaw.memory.accounting import Account, Claim, Level, State
from openclaw.memory.budget import for_weights
from openclaw.memory.tiers import (
    Footprint,
    Placing,
    Reduction,
    Shortage,
    Tier,
    needed,
    placing,
    promotion,
    reduction,
)

if TYPE_CHECKING:
    from openclaw.serving.loader import Found
    from openclaw.serving.loading import Loaded
    from openclaw.serving.served import Served

log = logging.getLogger(__name__)

_MOST = 3
"""Times its weights that a packed model takes at most: folded and laid out anew, they may be there more than once."""


@dataclass(slots=True, eq=False)
class ResidentModel:
    """One version of a model, from when it is opened until it is unloaded, and what it takes.

    Attributes:
        key: that no other has, also none of the same name.
        config: what was asked for.
        found: its file.
        packed: bytes that it takes when it is packed.
        own: bytes that it takes beside its weights when those are mapped.
        mappable: whether it can be mapped.
        packable: whether it is worth a try to have it packed.
        claim: the bytes that are counted for it; None: it has no memory, or none that lasts.
        uncounted: bytes that it takes beyond its claim, because there were no more.
        served: it, once it is served.
    """

    key: str
    config: ModelConfig
    found: Found
    packed: int
    own: int
    mappable: bool
    packable: bool = True
    claim: Claim | None = None
    uncounted: int = 0
    served: Served | None = None

    @property
    def name(self) -> str:
        """The model's, which another version of it has as well."""
        return self.config.name

    @property
    def tier(self) -> Tier:
        """Where its weights are; evicted as long as it is not served."""
        return Tier.EVICTED if self.served is None else self.served.tier

    def measured(self, loaded: Loaded) -> None:
        """Goes by what opening it took; what else went on meanwhile must not make that a multiple."""
        size = self.found.size
        if loaded.tier is Tier.PACKED:
            self.packed = min(max(loaded.took, size.all), _MOST * size.all)
        else:
            self.own = min(max(loaded.took, size.small), size.all)

    def release(self) -> None:
        """Counts its memory no more."""
        if self.claim is not None:
            self.claim.release()
            self.claim = None
            self.uncounted = 0


class Occupancy:
    """The models of one process, counted in an account; used from one event loop.

    Args:
        account: that weights are counted in.
    """

    def __init__(self, account: Account) -> None:
        self._account = account
        self._models: list[ResidentModel] = []
        self._expected: dict[str, ResidentModel] = {}
        self._keys = count()

    def __iter__(self) -> Iterator[ResidentModel]:
        """Those that are served now: models come and go while whoever walks over them waits for something."""
        return iter(tuple(self._models))

    def __contains__(self, model: ResidentModel) -> bool:
        return model in self._models

    @property
    def budget(self) -> int | None:
        """Bytes that weights may take; None: no bound."""
        budget = self._account.budget
        return None if budget is None else for_weights(budget, self._account.used(Level.SHARED))

    @property
    def lent(self) -> int:
        """Bytes of them that requests in flight have for now. What waits to be used again is there for the asking."""
        budget, account = self._account.budget, self._account
        if budget is None:
            return 0
        shared = account.used(Level.SHARED)
        buffers = account.used(Level.OBJECTS, state=State.USED) + account.used(Level.LOCKED, state=State.USED)
        return for_weights(budget, shared) - for_weights(budget, shared + buffers)

    def new(self, config: ModelConfig, found: Found) -> ResidentModel:
        """A model that takes nothing yet."""
        size = found.size
        key = f"{config.name}/{next(self._keys)}"
        return ResidentModel(key, config, found, packed=size.all, own=size.small, mappable=bool(size.weights))

    def expect(self, model: ResidentModel) -> None:
        """Has an opened model keep its memory until it is served; another of its name that waits for that does not."""
        self.drop(self._expected.get(model.name))
        self._expected[model.name] = model

    def drop(self, model: ResidentModel | None) -> None:
        """Counts a model no more that will not be served."""
        if model is not None:
            model.release()
            if self._expected.get(model.name) is model:
                del self._expected[model.name]

    def admit(self, served: Served, loaded: Loaded, found: Found) -> ResidentModel:
        """A model that is served from now on: the one of this name that was opened, or one that nobody counted."""
        model = self._expected.pop(served.name, None)
        if model is None:
            model = self.new(loaded.config, found)
            model.measured(loaded)
            model.claim = self._account.take(0, level=Level.WEIGHTS, model=model.name)
        model.served = served
        self._models.append(model)
        self.recount(model)
        return model

    def dismiss(self, served: Served) -> None:
        """Counts a model no more that was served."""
        for model in self:
            if model.served is served:
                self._models.remove(model)
                model.release()

    def claim(self, model: ResidentModel, tier: Tier) -> None:
        """Counts what a model is taken to need in a tier; raises OverBudget, and then counts what it did before."""
        size = self.footprint(model).cost(tier)
        if model.claim is None:
            model.claim = self._account.take(size, level=Level.WEIGHTS, model=model.name)
        else:
            model.claim.resize(size)
        model.uncounted = 0

    def recount(self, model: ResidentModel) -> None:
        """Counts what it was measured to take; where that is more than there is, what there is."""
        if model not in self:
            model.release()  # it may have been unloaded while it was opened
        if model.claim is None:
            return
        wanted = model.packed if model.tier is Tier.PACKED else self._mapped(model)
        try:
            model.claim.resize(wanted)
        except OverBudget:
            log.warning("%s takes %s bytes, more than were counted on", model.name, f"{wanted:,}")
            with suppress(OverBudget):  # a thread may take what is free before it is taken here
                model.claim.resize(max(0, min(wanted, model.claim.size + self._account.free)))
        model.uncounted = wanted - model.claim.size

    def place(self, model: ResidentModel, *, now: float, evicting: bool = True) -> Placing | Shortage:
        """Where a model goes that has no memory; see :func:`~openclaw.memory.tiers.placing`.

        Args:
            model: it.
            now: ``time.time()``.
            evicting: whether others may be evicted for it.
        """
        others = [self.footprint(other) for other in self._models if other is not model]
        others += [
            Footprint(other.key, packed=other.claim.size, mapped=None, tier=Tier.PACKED, busy=True)
            for other in self._expected.values()
            if other.claim
        ]
        return placing(self.footprint(model), others, budget=self.budget, now=now, lent=self.lent, evicting=evicting)

    def promotion(self, *, now: float) -> tuple[ResidentModel, Placing] | None:
        """A mapped model that should be packed, and how."""
        models = {model.key: model for model in self._models if model.packable}
        footprints = [self.footprint(model) for model in models.values()]
        found = promotion(footprints, budget=self.budget, now=now, lent=self.lent)
        return None if found is None else (models[found[0]], found[1])

    def reduction(self) -> Reduction:
        """What is to give up memory, by its key, where there is less than there was."""
        budget = None if self.budget is None else self.budget - self.lent
        return reduction([self.footprint(model) for model in self._models], budget=budget)

    def needed(self) -> int:
        """The least bytes of weights with which each model can answer."""
        models = [(self.footprint(model), model.found.size.all) for model in self._models]
        return needed([replace(footprint, packed=min(footprint.packed, size)) for footprint, size in models])

    def footprint(self, model: ResidentModel) -> Footprint:
        """A model as what is decided goes by."""
        served, budget = model.served, self.budget
        # What could not come back stays.
        pinned = model.config.pinned or (not model.mappable and budget is not None and model.packed > budget)
        packed, mapped = model.packed, self._mapped(model) if model.mappable else None
        if model.claim is not None:
            # What was decided for it holds while it is open, whatever became of the others.
            counted = model.claim.size + model.uncounted
            if model.tier is Tier.MAPPED:
                mapped = counted
            elif model.tier is Tier.PACKED:
                packed = counted
        return Footprint(
            model.key,
            packed=packed,
            mapped=mapped,
            tier=model.tier,
            last_used=served.last_used if served else 0.0,
            pinned=pinned,
            busy=served is not None and served.busy,
        )

    def _mapped(self, model: ResidentModel) -> int:
        """Bytes that it takes mapped. Pages of one larger than all memory are the kernel's: it keeps what it can."""
        whole, budget = model.own + model.found.size.weights, self.budget
        others = 0 if model.config.pinned else self._pinned(model)
        return whole if budget is None or whole <= budget - others else model.own

    def _pinned(self, but: ResidentModel) -> int:
        """Bytes that pinned models take."""
        others = (other for other in self._models if other is not but and other.config.pinned and other.claim)
        return sum(other.claim.size for other in others if other.claim)
