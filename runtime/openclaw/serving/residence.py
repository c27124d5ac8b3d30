"""Keeps the models of one server process within its budget of memory: opens them, evicts them and brings them back.

One change at a time, so that what was decided still holds when it is done. Requests to a model on disk wait for one
opening of it, however many they are; nothing fails because a model was evicted.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from functools import partial

from openclaw.config import ModelConfig
from openclaw.errors import CannotMap, NotReady, OpenClawError, OutOfMemory, OverBudget, StartupError
from openclaw.memory.accounting import Account
from openclaw.memory.tiers import Basis, Placing, Shortage, Tier
from openclaw.memory.trimming import trim
from openclaw.serving.loader import Found, Loader, too_small
from openclaw.serving.loading import Loaded, measured
from openclaw.serving.occupancy import Occupancy, ResidentModel
from openclaw.serving.recording import ServingMetrics
from openclaw.serving.served import Served
from openclaw.serving.threads import in_thread

log = logging.getLogger(__name__)

TEND_SECONDS = 1.0
"""How often a server looks whether it still has its memory, and whether another model has earned some."""
_POLL_SECONDS = 0.005


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
        self._occupancy = Occupancy(account)
        self._loader = loader
        self._metrics = metrics
        self._patience = patience
        self._coming: dict[ResidentModel, asyncio.Task[None]] = {}
        self._turn = asyncio.Lock()
        self._missing = 0

    async def bring_up(self, config: ModelConfig, *, beside: bool = True) -> Loaded:
        """Opens a model that is not served yet; :meth:`admit` is to follow at once.

        Args:
            config: of the model.
            beside: whether it comes beside those that serve: others may have to give up their memory for it, and its
                batches are measured before it answers any. Otherwise it is only shown to work where there is no room,
                and on disk from then on.

        Raises:
            StartupError: it cannot be loaded.
        """
        found = await self._loader.find(config)
        opening = asyncio.create_task(self._bring_up(config, found, beside=beside))
        try:
            _, loaded = await asyncio.shield(opening)
        except asyncio.CancelledError:
            # A thread that opens a model cannot be interrupted, and half an eviction would count its memory for ever.
            # So what was begun goes on, and what comes of it is given back.
            opening.add_done_callback(self._unwanted)
            raise
        return loaded

    async def _bring_up(self, config: ModelConfig, found: Found, *, beside: bool) -> tuple[ResidentModel, Loaded]:
        model = self._occupancy.new(config, found)
        try:
            async with self._turn:
                loaded = await self._open_first(model, beside=beside)
                model.measured(loaded)
                self._occupancy.expect(model)
            return model, (await in_thread(measured, loaded) if beside else loaded)
        except BaseException:
            self._occupancy.drop(model)
            raise

    async def _open_first(self, model: ResidentModel, *, beside: bool) -> Loaded:
        try:
            place = await self._room(model, evicting=beside or model.config.pinned)
        except OverBudget as error:
            raise too_small(model.name, error.needed, budget=self._account.budget or 0) from error
        if beside:
            # What clients load may be too much for a server that serves already, bound or not.
            return await in_thread(self._loader.open_as_it_fits, model.config, model.found, place.tier)
        return await in_thread(self._loader.open_placed, model.config, model.found, place)

    def _unwanted(self, opening: asyncio.Task[tuple[ResidentModel, Loaded]]) -> None:
        if not opening.cancelled() and opening.exception() is None:
            model, loaded = opening.result()
            loaded.close()
            self._occupancy.drop(model)

    def admit(self, served: Served, loaded: Loaded) -> None:
        """Keeps a model from now on that was opened by :meth:`bring_up`, or before there was anybody to ask."""
        self._show(self._occupancy.admit(served, loaded, self._loader.found(served.name)))

    def dismiss(self, served: Served) -> None:
        """Keeps a model no more."""
        self._occupancy.dismiss(served)

    async def settle(self) -> None:
        """Evicts models that were only shown to work."""
        async with self._turn:
            for model in self._occupancy:
                if model.claim is None and model.tier is not Tier.EVICTED:
                    await self._evict(model, "there is no room for it")

    def check(self) -> None:
        """Raises OutOfMemory where the budget is too small for each of the models to answer."""
        budget, least = self._occupancy.budget, self._occupancy.needed()
        if budget is not None and least > budget and self._loader.asked:
            names = ", ".join(model.name for model in self._occupancy)
            raise too_small(names, least, budget=self._account.budget or 0)

    async def tend(self) -> None:
        """Follows the memory that is granted, and packs models that have earned it, until cancelled."""
        while True:
            await asyncio.sleep(TEND_SECONDS)
            try:
                await self.follow(await asyncio.to_thread(self._loader.budget))
                await self.promote()
            except (OpenClawError, OSError) as error:
                log.warning("models stay as they are: %s", error)

    async def follow(self, budget: int | None) -> None:
        """Goes by a budget from now on; where models take more than that, some give up theirs."""
        if budget != self._account.budget:
            log.info("the budget of memory is %s now", "without bound" if budget is None else f"{budget:,} bytes")
            self._account.budget = budget
            self._metrics.budget(budget)
        async with self._turn:
            change = self._occupancy.reduction()
            for model in self._occupancy:
                if model.key in change.evict:
                    await self._evict(model, "there is less memory than before")
                elif model.key in change.remap:
                    await self._open(model, Tier.MAPPED)
        if change.missing > self._missing:
            log.warning("models take %s bytes more than the budget, and none can be evicted", f"{change.missing:,}")
        self._missing = change.missing

    async def promote(self) -> None:
        """Packs a mapped model that has earned it, if there is one."""
        async with self._turn:
            found = self._occupancy.promotion(now=time.time())
            if found is None:
                return
            model, place = found
            try:
                await self._make_room(model, place)
                await self._open(model, place.tier)
                log.info("%s is packed now", model.name)
            except OverBudget:
                log.info("%s stays mapped: requests have taken what there was", model.name)
            except (StartupError, CannotMap, OSError) as error:
                log.warning("%s stays mapped: %s", model.name, error)
                model.packable = False
                self._occupancy.recount(model)

    async def bring_back(self, model: ResidentModel) -> None:
        """Opens a model again that was evicted; who comes while that goes on waits for the same. Raises NotReady."""
        if model not in self._coming:
            self._coming[model] = asyncio.create_task(self._bring_back(model))
            self._coming[model].add_done_callback(partial(self._came, model))
        await asyncio.shield(self._coming[model])

    def _came(self, model: ResidentModel, task: asyncio.Task[None]) -> None:
        del self._coming[model]
        if not task.cancelled():
            task.exception()  # those who waited were told; perhaps none was left

    async def _bring_back(self, model: ResidentModel) -> None:
        began = time.perf_counter()
        metrics = self._metrics.model(model.name)
        try:
            async with self._turn:
                self._check_kept(model)
                if model.tier is Tier.EVICTED:
                    await self._reopen(model)
        except (StartupError, CannotMap, OverBudget, OSError) as error:
            model.release()
            if isinstance(error, StartupError):
                metrics.load_failed(error.reason)
            log.error("%s cannot be brought back: %s", model.name, error)
            raise NotReady(f"model {model.name!r} cannot be brought back from disk: {error}") from error
        seconds = time.perf_counter() - began
        metrics.reloaded(seconds)
        log.info("%s is back, %s, after %.3f s", model.name, model.tier, seconds)

    async def _reopen(self, model: ResidentModel) -> None:
        if not model.found.path.exists():
            model.found = await self._loader.find(model.config)
        model.mappable = bool(model.found.size.weights)  # the disk may have had no room last time
        place = await self._room(model)
        try:
            await self._open(model, place.tier)
        except (CannotMap, OutOfMemory) as error:
            model.release()
            if place.tier is Tier.PACKED and not model.mappable:
                raise
            log.warning("%s cannot be %s: %s", model.name, place.tier, error)
            model.mappable = place.tier is Tier.PACKED
            try:
                await self._room(model)
            except OverBudget as shortage:
                raise error from shortage
            await self._open(model, Tier.MAPPED if model.mappable else Tier.PACKED)

    async def _room(self, model: ResidentModel, *, evicting: bool = True) -> Placing:
        """Has room made for it, as soon as requests in flight allow; raises OverBudget."""
        until = time.monotonic() + self._patience
        while True:
            place = self._occupancy.place(model, now=time.time(), evicting=evicting)
            if isinstance(place, Shortage) and not place.passing:
                raise OverBudget(place.needed, free=max(0, place.left))
            if isinstance(place, Placing):
                if place.basis is Basis.TRIAL:
                    return place
                # Without success, the buffers of requests have it for now.
                with suppress(OverBudget):
                    await self._make_room(model, place)
                    return place
            if time.monotonic() > until:
                raise OverBudget(self._occupancy.footprint(model).packed, free=self._account.free)
            await asyncio.sleep(_POLL_SECONDS)

    async def _make_room(self, model: ResidentModel, place: Placing) -> None:
        """Evicts those that are to go for it, and counts its memory; raises OverBudget."""
        for victim in self._occupancy:
            if victim.key in place.evict:
                await self._evict(victim, f"{model.name} is asked for")
        self._occupancy.claim(model, place.tier)

    async def _open(self, model: ResidentModel, tier: Tier) -> None:
        """Opens a served model in a tier, in which it then answers. Raises NotReady where it was unloaded meanwhile."""
        assert model.served is not None
        loaded = await in_thread(self._loader.open, model.config, model.found, tier, again=True)
        try:
            self._check_kept(model)
        except NotReady:
            loaded.close()
            raise
        model.measured(loaded)
        await model.served.take(loaded)
        self._occupancy.recount(model)
        self._show(model)

    async def _evict(self, model: ResidentModel, why: str) -> None:
        if model.served is None or model not in self._occupancy:
            return  # unloaded while another one was evicted
        tier, idle = model.tier, time.time() - model.served.last_used
        await model.served.evict(partial(self.bring_back, model))
        model.release()
        if tier is Tier.PACKED:
            await asyncio.to_thread(trim)
        self._metrics.model(model.name).evicted()
        self._show(model)
        used = f"last used {idle:.1f} s ago" if model.served.last_used else "never used"
        log.info("evicted %s, which was %s, %s: %s", model.name, tier, used, why)

    def _check_kept(self, model: ResidentModel) -> None:
        """Raises NotReady, and counts the model no more, where it was unloaded while others had their turn."""
        if model not in self._occupancy:
            model.release()
            raise NotReady(f"model {model.name!r} was unloaded")

    def _show(self, model: ResidentModel) -> None:
        self._metrics.model(model.name).tier(model.tier)
