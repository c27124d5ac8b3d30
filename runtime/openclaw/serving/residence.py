"""Keeps the models of one server process within its budget of memory: which are open, in which tier, and who goes.

One change at a time, so that what was decided still holds when it is done. Requests to a model on disk wait for one
opening of it, however many they are; nothing fails because a model was evicted.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import count

from openclaw.config import ModelConfig
from openclaw.errors import CannotMap, NotReady, OpenClawError, OutOfMemory, OverBudget, StartupError
from openclaw.memory.accounting import Account, Claim, Level
from openclaw.memory.budget import for_weights
from openclaw.memory.tiers import Placing, Resident, Shortage, Tier, needed, placing, promotion, reduction
from openclaw.memory.trimming import trim
from openclaw.serving.loader import Found, Loader, too_small
from openclaw.serving.loading import Loaded
from openclaw.serving.recording import ServingMetrics
from openclaw.serving.served import Served
from openclaw.serving.threads import in_thread

log = logging.getLogger(__name__)

TEND_SECONDS = 1.0
"""How often a server looks whether it still has its memory, and whether another model has earned some."""
_POLL_SECONDS = 0.005
_MOST = 3
"""Times its weights that a packed model takes at most: folded and laid out anew, they may be there more than once."""


@dataclass(slots=True, eq=False)
class _Lodger:
    """A model and what it takes: ``packed`` bytes, or ``own`` where its weights are mapped."""

    key: str
    config: ModelConfig
    found: Found
    packed: int
    own: int
    mappable: bool
    packable: bool = True
    uncounted: int = 0
    claim: Claim | None = None
    served: Served | None = None
    coming: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def tier(self) -> Tier:
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


class Residence:
    """The models of a server that has no more memory than it was granted; used from its event loop.

    Args:
        account: that weights are counted in.
        loader: opens models.
        metrics: of the process.
        patience: seconds that requests wait at most for room.
    """

    def __init__(self, account: Account, loader: Loader, metrics: ServingMetrics, *, patience: float) -> None:
        self._account = account
        self._loader = loader
        self._metrics = metrics
        self._patience = patience
        self._lodgers: list[_Lodger] = []
        self._awaited: dict[str, _Lodger] = {}
        self._turn = asyncio.Lock()
        self._keys = count()
        self._missing = 0

    async def bring_up(self, config: ModelConfig, *, beside: bool = True) -> Loaded:
        """Opens a model that is not served yet; :meth:`admit` is to follow.

        Args:
            config: of the model.
            beside: whether others may have to give up their memory for it. Otherwise it is only shown to work where
                there is no room, and on disk from then on.

        Raises:
            StartupError: it cannot be loaded.
        """
        lodger = self._lodger(config, await self._loader.find(config))
        async with self._turn:
            tier = await self._first_tier(lodger, drives_out=beside or config.pinned)
            # Without a bound, all that the configuration names is taken to fit, as ever.
            trust = self._account.budget is None and not beside
            open_ = self._loader.open if trust else self._loader.open_as_it_fits
            try:
                loaded = await in_thread(open_, config, lodger.found, tier)
            except BaseException:
                lodger.release()
                raise
        lodger.measured(loaded)
        if config.name in self._awaited:
            self._awaited[config.name].release()
        self._awaited[config.name] = lodger
        return loaded

    async def _first_tier(self, lodger: _Lodger, *, drives_out: bool) -> Tier:
        """Has room made for a model that is not served yet; without room, the tier that it is shown to work in."""
        place = self._place(lodger, protected=not drives_out)
        try:
            if drives_out:
                return (await self._room(lodger)).tier
            if isinstance(place, Placing):
                await self._make_room(lodger, place)
                return place.tier
        except OverBudget as error:
            raise too_small(lodger.name, error.needed, budget=self._account.budget or 0) from error
        if place.needed > place.left:
            raise too_small(lodger.name, place.needed, budget=self._account.budget or 0)
        return Tier.MAPPED if lodger.mappable else Tier.PACKED

    def admit(self, served: Served, loaded: Loaded) -> None:
        """Keeps a model from now on that was opened by :meth:`bring_up`, or before there was anybody to ask."""
        lodger = self._awaited.pop(served.name, None)
        if lodger is None:
            lodger = self._lodger(loaded.config, self._loader.found(served.name))
            lodger.measured(loaded)
            lodger.claim = self._account.take(0, level=Level.WEIGHTS, model=lodger.name)
        lodger.served = served
        self._lodgers.append(lodger)
        self._recount(lodger)
        self._show(lodger)

    def dismiss(self, served: Served) -> None:
        """Keeps a model no more."""
        for lodger in [lodger for lodger in self._lodgers if lodger.served is served]:
            self._lodgers.remove(lodger)
            lodger.release()

    async def settle(self) -> None:
        """Evicts models that were only shown to work."""
        async with self._turn:
            for lodger in self._lodgers:
                if lodger.claim is None and lodger.tier is not Tier.EVICTED:
                    await self._evict(lodger, "there is no room for it")

    def check(self) -> None:
        """Raises OutOfMemory where the budget is too small for each of the models to answer."""
        budget = self._for_weights()
        sizes = {lodger.key: lodger.found.size.all for lodger in self._lodgers}
        least = needed([replace(each, packed=min(each.packed, sizes[each.name])) for each in self._residents()])
        if budget is not None and least > budget and self._loader.asked:
            raise too_small(", ".join(lodger.name for lodger in self._lodgers), least, budget=self._account.budget or 0)

    async def tend(self) -> None:
        """Follows the memory that is granted, and packs models that have earned it, until cancelled."""
        while True:
            await asyncio.sleep(TEND_SECONDS)
            try:
                await self.follow(await asyncio.to_thread(self._loader.budget))
                await self._promote()
            except OpenClawError as error:
                log.warning("models stay as they are: %s", error)

    async def follow(self, budget: int | None) -> None:
        """Goes by a budget from now on; where models take more than that, some give up theirs."""
        if budget != self._account.budget:
            log.info("the budget of memory is %s now", "without bound" if budget is None else f"{budget:,} bytes")
            self._account.budget = budget
            self._metrics.budget(budget)
        async with self._turn:
            change = reduction(self._residents(), budget=self._for_weights())
            for lodger in self._lodgers:
                if lodger.key in change.evict:
                    await self._evict(lodger, "there is less memory than before")
                elif lodger.key in change.remap:
                    await self._open(lodger, Tier.MAPPED)
        if change.missing > self._missing:
            log.warning("models take %s bytes more than the budget, and none can be evicted", f"{change.missing:,}")
        self._missing = change.missing

    async def bring_back(self, lodger: _Lodger) -> None:
        """Opens a model again that was evicted; who comes while that goes on waits for the same. Raises NotReady."""
        if lodger.coming is None:
            lodger.coming = asyncio.create_task(self._bring_back(lodger))
            lodger.coming.add_done_callback(partial(_came, lodger))
        await asyncio.shield(lodger.coming)

    async def _bring_back(self, lodger: _Lodger) -> None:
        began = time.perf_counter()
        metrics = self._metrics.model(lodger.name)
        try:
            async with self._turn:
                if lodger in self._lodgers and lodger.tier is Tier.EVICTED:
                    await self._reopen(lodger)
        except (StartupError, CannotMap, OverBudget) as error:
            lodger.release()
            if isinstance(error, StartupError):
                metrics.load_failed(error.reason)
            log.error("%s cannot be brought back: %s", lodger.name, error)
            raise NotReady(f"model {lodger.name!r} cannot be brought back from disk: {error}") from error
        seconds = time.perf_counter() - began
        metrics.reloaded(seconds)
        log.info("%s is back, %s, after %.3f s", lodger.name, lodger.tier, seconds)

    async def _reopen(self, lodger: _Lodger) -> None:
        if not lodger.found.path.exists():
            lodger.found = await self._loader.find(lodger.config)
        lodger.mappable = bool(lodger.found.size.weights)  # the disk may have had no room last time
        place = await self._room(lodger)
        try:
            await self._open(lodger, place.tier)
        except (CannotMap, OutOfMemory) as error:
            lodger.release()
            if place.tier is Tier.PACKED and not lodger.mappable:
                raise
            log.warning("%s cannot be %s: %s", lodger.name, place.tier, error)
            lodger.mappable = place.tier is Tier.PACKED
            try:
                await self._room(lodger)
            except OverBudget as shortage:
                raise error from shortage
            await self._open(lodger, Tier.MAPPED if lodger.mappable else Tier.PACKED)

    async def _room(self, lodger: _Lodger) -> Placing:
        """Has room made for it, as soon as requests in flight allow; raises OverBudget."""
        until = time.monotonic() + self._patience
        while True:
            place = self._place(lodger)
            if isinstance(place, Shortage) and not place.passing:
                raise OverBudget(place.needed, free=max(0, place.left))
            if isinstance(place, Placing):
                # Without success, the buffers of requests have it for now.
                with suppress(OverBudget):
                    await self._make_room(lodger, place)
                    return place
            if time.monotonic() > until:
                raise OverBudget(self._resident(lodger).packed, free=self._account.free)
            await asyncio.sleep(_POLL_SECONDS)

    async def _make_room(self, lodger: _Lodger, place: Placing) -> None:
        for victim in [other for other in self._lodgers if other.key in place.evict]:
            await self._evict(victim, f"{lodger.name} is asked for")
        cost = self._resident(lodger).cost(place.tier)
        lodger.claim = self._account.take(cost, level=Level.WEIGHTS, model=lodger.name)

    async def _open(self, lodger: _Lodger, tier: Tier) -> None:
        """Opens a served model in a tier, in which it then answers."""
        assert lodger.served is not None
        loaded = await in_thread(self._loader.open, lodger.config, lodger.found, tier, again=True)
        lodger.measured(loaded)
        await lodger.served.take(loaded)
        self._recount(lodger)
        self._show(lodger)

    async def _evict(self, lodger: _Lodger, why: str) -> None:
        assert lodger.served is not None
        tier, idle = lodger.tier, time.time() - lodger.served.last_used
        await lodger.served.evict(partial(self.bring_back, lodger))
        lodger.release()
        if tier is Tier.PACKED:
            await asyncio.to_thread(trim)
        self._metrics.model(lodger.name).evicted()
        self._show(lodger)
        used = f"last used {idle:.1f} s ago" if lodger.served.last_used else "never used"
        log.info("evicted %s, which was %s, %s: %s", lodger.name, tier, used, why)

    async def _promote(self) -> None:
        async with self._turn:
            models = [self._resident(lodger) for lodger in self._lodgers if lodger.packable]
            found = promotion(models, budget=self._for_weights(), now=time.time())
            if found is None:
                return
            key, place = found
            (lodger,) = [lodger for lodger in self._lodgers if lodger.key == key]
            lodger.release()
            await self._make_room(lodger, place)
            try:
                await self._open(lodger, place.tier)
                log.info("%s is packed now", lodger.name)
            except OutOfMemory as error:
                log.warning("%s stays mapped: %s", lodger.name, error)
                lodger.packable = False
                self._recount(lodger)

    def _lodger(self, config: ModelConfig, found: Found) -> _Lodger:
        size = found.size
        key = f"{config.name}/{next(self._keys)}"
        return _Lodger(key, config, found, packed=size.all, own=size.small, mappable=bool(size.weights))

    def _for_weights(self) -> int | None:
        """What weights may take beside what buffers have taken already."""
        budget = self._account.budget
        if budget is None:
            return None
        others = self._account.used() - self._account.used(Level.WEIGHTS)
        return min(for_weights(budget), budget - others)

    def _resident(self, lodger: _Lodger) -> Resident:
        served, budget = lodger.served, self._for_weights()
        # What could not come back stays.
        pinned = lodger.config.pinned or (not lodger.mappable and budget is not None and lodger.packed > budget)
        packed, mapped = lodger.packed, self._mapped(lodger) if lodger.mappable else None
        if lodger.claim is not None:
            # What was decided for it holds while it is open, whatever became of the others.
            counted = lodger.claim.size + lodger.uncounted
            if lodger.tier is Tier.MAPPED:
                mapped = counted
            elif lodger.tier is Tier.PACKED:
                packed = counted
        return Resident(
            lodger.key,
            packed=packed,
            mapped=mapped,
            tier=lodger.tier,
            last_used=served.last_used if served else 0.0,
            pinned=pinned,
            busy=served is not None and served.busy,
        )

    def _mapped(self, lodger: _Lodger) -> int:
        """Bytes that it takes mapped. Pages of one larger than all memory are the kernel's: it keeps what it can."""
        whole, budget = lodger.own + lodger.found.size.weights, self._for_weights()
        others = 0 if lodger.config.pinned else self._pinned(lodger)
        return whole if budget is None or whole <= budget - others else lodger.own

    def _pinned(self, but: _Lodger) -> int:
        """Bytes that pinned models take."""
        others = (other for other in self._lodgers if other is not but and other.config.pinned and other.claim)
        return sum(other.claim.size for other in others if other.claim)

    def _residents(self) -> list[Resident]:
        return [self._resident(lodger) for lodger in self._lodgers]

    def _place(self, lodger: _Lodger, *, protected: bool = False) -> Placing | Shortage:
        others = [self._resident(other) for other in self._lodgers if other is not lodger]
        others += [
            Resident(other.key, packed=other.claim.size, mapped=None, tier=Tier.PACKED, busy=True)
            for other in self._awaited.values()
            if other.claim
        ]
        if protected:
            others = [replace(other, busy=True) for other in others]
        return placing(self._resident(lodger), others, budget=self._for_weights(), now=time.time())

    def _recount(self, lodger: _Lodger) -> None:
        """Counts what it was measured to take; where that is more than there is, what there is."""
        if lodger.claim is None:
            return
        wanted = lodger.packed if lodger.tier is Tier.PACKED else self._mapped(lodger)
        try:
            lodger.claim.resize(wanted)
        except OverBudget:
            log.warning("%s takes %s bytes, more than were counted on", lodger.name, f"{wanted:,}")
            lodger.claim.resize(max(0, min(wanted, lodger.claim.size + self._account.free)))
        lodger.uncounted = wanted - lodger.claim.size

    def _show(self, lodger: _Lodger) -> None:
        self._metrics.model(lodger.name).tier(lodger.tier)


def _came(lodger: _Lodger, task: asyncio.Task[None]) -> None:
    lodger.coming = None
    if not task.cancelled():
        task.exception()  # those who waited were told; perhaps none was left
