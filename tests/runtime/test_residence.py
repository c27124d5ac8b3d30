"""Models of one process in its budget: clients that hang up, files that vanish, buffers that take the room."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from openclaw.config import parse
from openclaw.errors import NotReady, OverBudget
from openclaw.memory.accounting import Account, Claim, Ledger, Level
from openclaw.memory.pool.objects import Buffer
from openclaw.memory.tiers import Tier
from openclaw.serving.counters import SharedCounters
from openclaw.serving.inference import InferRequest, InferResponse, Tensor
from openclaw.serving.lifecycle import make_repository
from openclaw.serving.loader import Loader
from openclaw.serving.repository import Control
from openclaw.serving.residence import Residence
from openclaw.serving.served import Served
from openclaw.serving.telemetry import Telemetry
from support.products import SIZE, products, weights
from support.waiting import until

MIB = 1 << 20
SEEDS = range(8)
MODEL = 8 * MIB
BUDGET = 32 * MIB
GIVEN = np.linspace(-1, 1, SIZE, dtype=np.float32)[None]


class Others:
    """What other processes of the server have taken of the budget."""

    def __init__(self) -> None:
        self.taken = 0

    def tell(self, size: int) -> None:
        """This process has so many bytes, which nobody asks for here."""

    def others(self) -> int:
        return self.taken


class Site:
    """A server's models without what carries requests to them."""

    def __init__(self, folder: Path, *paths: Path, budget: int = BUDGET, ledger: Ledger | None = None) -> None:
        sections = [{"name": path.stem, "uri": path.as_uri()} for path in paths]
        server = {"memoryBudgetBytes": budget, "threads": 1, "modelControl": True}
        self.config = parse({"model": sections[0], "models": sections[1:], "server": server})
        self.account = Account(budget, ledger=ledger)
        telemetry = Telemetry(SharedCounters())
        loader = Loader(self.config, folder / "cache")
        self.residence = Residence(self.account, loader, telemetry.metrics, patience=30.0)
        known = {model.name: model for model in self.config.all_models}
        self.repository = make_repository(
            self.config,
            telemetry,
            account=self.account,
            control=Control(self.residence.bring_up, known.get),
            residence=self.residence,
        )

    @property
    def served(self) -> Served:
        return self.repository.find(self.config.model.name)

    @property
    def held(self) -> int:
        """Bytes that are counted for weights."""
        return self.account.used(Level.WEIGHTS)

    async def serve(self) -> None:
        """Serves the models of the configuration."""
        for model in self.config.all_models:
            self.repository.put(await self.residence.bring_up(model, beside=False))

    async def evict(self) -> None:
        """Has all models on disk, with room for them."""
        budget = self.account.budget
        await self.residence.follow(MIB)
        await self.residence.follow(budget)
        assert self.served.tier is Tier.EVICTED
        assert self.held == 0

    async def ask(self) -> np.ndarray:
        answer = self.served.infer(InferRequest((Tensor("x", "FP32", GIVEN),)))
        response = answer if isinstance(answer, InferResponse) else await answer
        return response.outputs[0].array

    def take_all(self) -> Claim:
        """What a request takes whose body is as large as there is room."""
        return self.account.take(self.account.free, level=Level.OBJECTS)


def wanted(seeds: range) -> np.ndarray:
    answer = GIVEN
    for seed in seeds:
        answer = answer @ weights(seed)
    return answer


def runs(name: str) -> Callable[[], bool]:
    """Whether a thread is at this work."""
    return lambda: any(thread.name.startswith(name) for thread in threading.enumerate())


async def begun() -> None:
    """Lets all go on that does not wait for time to pass."""
    for _ in range(50):
        await asyncio.sleep(0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return products(tmp_path / "m0.onnx", *SEEDS)


@pytest.fixture
async def site(path: Path, tmp_path: Path) -> Site:
    """With one model, on disk."""
    site = Site(tmp_path, path)
    await site.serve()
    assert MODEL <= site.held <= BUDGET
    await site.evict()
    return site


@pytest.mark.parametrize("work", ["open_as_it_fits", "measured"])
async def test_a_load_whose_client_hangs_up_is_counted_while_it_goes_on_and_no_longer(
    work: str, path: Path, tmp_path: Path
) -> None:
    site = Site(tmp_path, path)
    loading = asyncio.create_task(site.repository.load("m0"))
    await until(runs(work), interval=0.001)
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    assert site.held >= MODEL
    await until(lambda: site.held == 0)
    await site.repository.load("m0")
    np.testing.assert_allclose(await site.ask(), wanted(SEEDS), rtol=1e-3, atol=1e-4)


async def test_a_model_on_disk_waits_for_requests_that_have_its_memory(site: Site) -> None:
    request = site.take_all()
    asking = asyncio.create_task(site.ask())
    await begun()
    assert not asking.done()
    request.release()
    np.testing.assert_allclose(await asking, wanted(SEEDS), rtol=1e-3, atol=1e-4)
    assert site.served.tier is Tier.PACKED


async def test_buffers_that_wait_to_be_used_again_make_room_for_a_model(site: Site) -> None:
    buffers: list[Buffer] = []
    with suppress(OverBudget):
        while True:
            buffers.append(site.repository.pool.take(MIB))
    for buffer in buffers:
        buffer.release()
    site.repository.pool.settle()
    assert site.repository.pool.kept == BUDGET
    await site.ask()
    assert site.served.tier is Tier.PACKED
    assert site.repository.pool.kept <= BUDGET - MODEL


async def test_a_model_that_is_unloaded_while_it_comes_back_has_no_memory_after_that(site: Site) -> None:
    request = site.take_all()
    asking = asyncio.create_task(site.ask())
    await begun()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await site.repository.unload("m0")
    request.release()
    await site.residence.settle()  # has its turn after what goes on
    assert site.held == 0
    with pytest.raises(NotReady, match="unloaded"):
        await site.ask()


async def test_who_waits_for_a_model_on_disk_that_is_unloaded_is_answered_and_nobody_after_that(site: Site) -> None:
    served, request = site.served, site.take_all()
    asking = asyncio.create_task(site.ask())
    await begun()
    unloading = asyncio.create_task(site.repository.unload("m0"))
    await begun()
    assert not unloading.done()
    request.release()
    np.testing.assert_allclose(await asking, wanted(SEEDS), rtol=1e-3, atol=1e-4)
    await unloading
    assert site.held == 0
    with pytest.raises(NotReady, match="is being unloaded"):
        await served.infer(InferRequest((Tensor("x", "FP32", GIVEN),)))


class TestPacking:
    """Of a model that was larger than the budget and so is mapped, once there is room."""

    SEEDS = range(24)
    ROOM = 128 * MIB

    @pytest.fixture
    def others(self) -> Others:
        return Others()

    @pytest.fixture
    def large(self, tmp_path: Path) -> Path:
        return products(tmp_path / "large.onnx", *self.SEEDS)

    @pytest.fixture
    async def mapped(self, large: Path, others: Others, tmp_path: Path) -> Site:
        site = Site(tmp_path, large, budget=24 * MIB, ledger=others)
        await site.serve()
        assert site.served.tier is Tier.MAPPED
        await self.check(site)
        await site.residence.follow(self.ROOM)
        return site

    async def check(self, site: Site) -> None:
        np.testing.assert_allclose(await site.ask(), wanted(self.SEEDS), rtol=1e-2, atol=1e-4)

    async def test_it_is_packed_when_it_was_asked_for(self, mapped: Site) -> None:
        await mapped.residence.promote()
        assert mapped.served.tier is Tier.PACKED
        assert mapped.held >= 24 * MIB
        await self.check(mapped)

    async def test_what_others_took_meanwhile_leaves_it_mapped_and_counted(self, mapped: Site, others: Others) -> None:
        before = mapped.held
        assert before > 0
        others.taken = 120 * MIB
        await mapped.residence.promote()
        assert mapped.served.tier is Tier.MAPPED
        assert mapped.held == before
        others.taken = 0
        await mapped.residence.promote()
        assert mapped.served.tier is Tier.PACKED

    async def test_a_file_that_is_gone_leaves_it_mapped_and_counted(self, mapped: Site, large: Path) -> None:
        await asyncio.to_thread(large.unlink)
        await mapped.residence.promote()
        assert mapped.served.tier is Tier.MAPPED
        assert mapped.held > 0
        await self.check(mapped)
