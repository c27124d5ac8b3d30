"""Which models of a server have their weights in memory, in which form, and which give theirs up for others.

========  =========================================================================================
packed    in memory, arranged for the kernels: the fastest, and nothing can take the memory away
mapped    pages of a file that the kernel drops and reads again as it needs to; opens in milliseconds
evicted   on disk only; the next request opens the model again
========  =========================================================================================

A model is packed while there is room. Without room, one that is asked for takes the place of packed ones that nobody
has asked for in a while; else it is mapped, in the place of whichever were asked for longest ago. So a few requests to
a rare model cannot drive out those that are always asked for, and none has to wait long. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum

STALE_SECONDS = 60.0
"""Without a request so long, a packed model may have to give its place to one that is asked for."""


class Tier(StrEnum):
    """Where a model's weights are."""

    PACKED = "packed"
    MAPPED = "mapped"
    EVICTED = "evicted"


@dataclass(frozen=True, slots=True)
class Footprint:
    """What one model of the server takes in each tier, and what speaks for leaving it there.

    Attributes:
        packed: bytes of the budget that it takes when it is packed.
        mapped: bytes that it takes when it is mapped; None: it cannot be.
        tier: that it has.
        last_used: when it was last asked for, in seconds of any clock; 0: never.
        pinned: whether it keeps its memory.
        busy: whether requests to it are being answered.
    """

    name: str
    packed: int
    mapped: int | None
    tier: Tier = Tier.EVICTED
    last_used: float = 0.0
    pinned: bool = False
    busy: bool = False

    def cost(self, tier: Tier) -> int:
        """Bytes of the budget that it takes in a tier."""
        if tier is Tier.EVICTED:
            return 0
        return self.packed if tier is Tier.PACKED or self.mapped is None else self.mapped

    @property
    def held(self) -> int:
        """Bytes that it takes now."""
        return self.cost(self.tier)

    @property
    def movable(self) -> bool:
        """Whether its memory may be taken now."""
        return self.tier is not Tier.EVICTED and not self.pinned and not self.busy


class Basis(Enum):
    """What a placing rests on."""

    ROOM = "room"
    """Once others are evicted there is room, also from then on."""
    TRIAL = "trial"
    """There would be room if others gave up theirs: opened to see that it works, and evicted after that."""
    TRUST = "trust"
    """Nothing that is sure bounds it: it is taken to fit."""


@dataclass(frozen=True, slots=True)
class Placing:
    """What to do: evict these, then open the model in this tier."""

    tier: Tier
    evict: tuple[str, ...] = ()
    basis: Basis = Basis.ROOM


@dataclass(frozen=True, slots=True)
class Shortage:
    """There is no room.

    Attributes:
        needed: bytes that the model takes at least.
        left: bytes that it could have if all that may ever give up theirs did.
        passing: whether there is room once requests in flight are answered.
    """

    needed: int
    left: int
    passing: bool


def placing(
    wanted: Footprint,
    others: Sequence[Footprint],
    *,
    budget: int | None,
    now: float,
    lent: int = 0,
    evicting: bool = True,
    enforced: bool = True,
) -> Placing | Shortage:
    """Where a model goes: one that is brought up, asked for while it is on disk, or has earned a faster tier.

    Args:
        wanted: it; its own tier counts for nothing.
        others: of the same budget.
        budget: bytes; None: no bound.
        now: by the clock of ``last_used``.
        lent: bytes of the budget that requests in flight have for now.
        evicting: whether others may be evicted for it. Otherwise what would need that is placed on trial.
        enforced: whether the budget is sure. Otherwise what can never fit into it is packed on trust.
    """
    if budget is None:
        return Placing(Tier.PACKED, basis=Basis.TRUST)
    free = budget - lent - sum(other.held for other in others)
    victims = others if evicting else ()
    # Who is mapped at all would rather wait for a place than drive out who is asked for as often.
    first = _given_up(victims, now=None if wanted.pinned or wanted.mapped is None else now)
    tries = [(Tier.PACKED, first)]
    if wanted.mapped is not None:
        tries.append((Tier.MAPPED, _given_up(victims)))
    for tier, movable in tries:
        found = _freed(movable, missing=wanted.cost(tier) - free)
        if found is not None:
            return Placing(tier, found)
    least = tries[-1][0]
    needed = min(wanted.packed, wanted.cost(least))
    left = budget - sum(other.held for other in others if other.pinned)
    if needed > left:
        return Shortage(needed, left=left, passing=False) if enforced else Placing(Tier.PACKED, basis=Basis.TRUST)
    return Shortage(needed, left=left, passing=True) if evicting else Placing(least, basis=Basis.TRIAL)


def promotion(
    models: Sequence[Footprint], *, budget: int | None, now: float, lent: int = 0
) -> tuple[str, Placing] | None:
    """A mapped model that should be packed, and how; None where all is well. Those asked for last come first.

    Args:
        models: of one budget.
        budget: as :func:`placing` takes it.
        now: as there.
        lent: as there.
    """
    mapped = [model for model in models if model.tier is Tier.MAPPED and not _stale(model, now)]
    for model in sorted(mapped, key=lambda model: -model.last_used):
        others = [other for other in models if other.name != model.name]
        found = placing(model, others, budget=budget, now=now, lent=lent)
        if isinstance(found, Placing) and found.tier is Tier.PACKED:
            return model.name, found
    return None


@dataclass(frozen=True, slots=True)
class Reduction:
    """How to come back below a budget: evict these, have these mapped; ``missing`` bytes are above it even then."""

    evict: tuple[str, ...]
    remap: tuple[str, ...]
    missing: int


def reduction(models: Sequence[Footprint], *, budget: int | None) -> Reduction:
    """What is to give up memory where there is less than there was; pinned models stay, but may have to be mapped."""
    missing = 0 if budget is None else sum(model.held for model in models) - budget
    evict, remap = [], []
    for model in _given_up(models):
        if missing <= 0:
            break
        evict.append(model.name)
        missing -= model.held
    for model in sorted(models, key=_age):
        saved = model.held - model.cost(Tier.MAPPED)
        if missing <= 0:
            break
        if model.pinned and model.tier is Tier.PACKED and saved > 0:
            remap.append(model.name)
            missing -= saved
    return Reduction(tuple(evict), tuple(remap), missing=max(0, missing))


def needed(models: Sequence[Footprint]) -> int:
    """The least budget with which each of them can answer: the pinned ones together, and the largest other one."""
    least = [min(model.packed, model.cost(Tier.MAPPED)) for model in models]
    pinned = sum(size for model, size in zip(models, least, strict=True) if model.pinned)
    return pinned + max((size for model, size in zip(models, least, strict=True) if not model.pinned), default=0)


def _given_up(models: Sequence[Footprint], *, now: float | None = None) -> Iterator[Footprint]:
    """Those that may have to give up their memory, the longest unused first; with ``now`` only stale ones."""
    movable = (model for model in models if model.movable and (now is None or _stale(model, now)))
    return iter(sorted(movable, key=_age))


def _freed(victims: Iterator[Footprint], *, missing: int) -> tuple[str, ...] | None:
    """As many of them as are needed for so many bytes; None where all are too few."""
    names = []
    while missing > 0:
        victim = next(victims, None)
        if victim is None:
            return None
        names.append(victim.name)
        missing -= victim.held
    return tuple(names)


def _age(model: Footprint) -> tuple[float, str]:
    return model.last_used, model.name


def _stale(model: Footprint, now: float) -> bool:
    return now - model.last_used >= STALE_SECONDS
