"""One account: what was granted is counted until it is released, and never more than the budget."""

from __future__ import annotations

import gc
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from openclaw.errors import OverBudget
from openclaw.memory.accounting import Account, Claim, Level, State

BUDGET = 1000
SIZES = st.integers(0, 600)
LEVELS = st.sampled_from(Level)
MODELS = st.sampled_from(["", "digits", "resnet"])
STATES = st.sampled_from(State)


class Accounting(RuleBasedStateMachine):
    """Any claims of any holders against a sum kept by hand."""

    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.account = Account(BUDGET)
        self.held: list[Claim] = []
        self.most = 0

    def _total(self) -> int:
        return sum(claim.size for claim in self.held)

    @rule(target=claims, size=SIZES, level=LEVELS, model=MODELS, state=STATES)
    def take(self, size: int, level: Level, model: str, state: State) -> Claim:
        free = BUDGET - self._total()
        if size > free:
            with pytest.raises(OverBudget) as refused:
                self.account.take(size, level=level, model=model, state=state)
            assert (refused.value.needed, refused.value.free) == (size, free)
            return self.account.take(0, level=level)
        claim = self.account.take(size, level=level, model=model, state=state)
        self.held.append(claim)
        self.most = max(self.most, self._total())
        return claim

    @rule(claim=consumes(claims))
    def release(self, claim: Claim) -> None:
        claim.release()
        if claim in self.held:
            self.held.remove(claim)
        with pytest.raises(RuntimeError, match="released twice"):
            claim.release()

    @rule(claim=claims, state=STATES, model=MODELS)
    def turn(self, claim: Claim, state: State, model: str) -> None:
        claim.turn(state, model=model)
        assert (claim.entry.state, claim.entry.model) == (state, model)

    @rule(claim=claims, size=SIZES)
    def resize(self, claim: Claim, size: int) -> None:
        before = claim.size
        if size - before > BUDGET - self._total():
            with pytest.raises(OverBudget):
                claim.resize(size)
            assert claim.size == before
            return
        claim.resize(size)
        if claim not in self.held:
            self.held.append(claim)
        self.most = max(self.most, self._total())

    @invariant()
    def counts_what_is_held(self) -> None:
        assert self.account.used() == self._total()
        assert self.account.free == BUDGET - self._total()
        assert self.account.peak == self.most
        for level in Level:
            assert self.account.used(level) == sum(c.size for c in self.held if c.entry.level == level)
        for state in State:
            assert self.account.used(state=state) == sum(c.size for c in self.held if c.entry.state == state)


TestAccounting = Accounting.TestCase
TestAccounting.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


def test_without_a_budget_everything_is_granted_and_counted() -> None:
    account = Account()
    with account.take(2**50, level=Level.WEIGHTS, model="large"):
        assert account.free == sys.maxsize
        assert account.used(Level.WEIGHTS, "large") == 2**50
    assert account.used() == 0


def test_what_is_kept_is_given_back_before_anybody_is_refused() -> None:
    account = Account(100)
    kept = account.take(80, level=Level.OBJECTS, state=State.KEPT)
    asked: list[int] = []

    def give_back(missing: int) -> None:
        asked.append(missing)
        if not kept.released:
            kept.release()

    account.on_shortage(give_back)
    with account.take(50, level=Level.OBJECTS):
        assert asked == [30]
        assert account.used() == 50
        with pytest.raises(OverBudget, match="51 bytes of memory are needed and 50 are free"):
            account.take(51, level=Level.OBJECTS)
    assert account.used() == 0


def test_a_claim_that_was_released_cannot_be_used() -> None:
    account = Account(100)
    claim = account.take(10, level=Level.OBJECTS)
    claim.release()
    with pytest.raises(RuntimeError, match="used after"):
        claim.turn(State.KEPT)
    with pytest.raises(RuntimeError, match="used after"):
        claim.resize(20)
    assert account.used() == 0


@pytest.mark.parametrize("size", [-1, -(2**40)])
def test_a_negative_size_is_refused(size: int) -> None:
    account = Account(100)
    with pytest.raises(ValueError, match="bytes from 0"):
        account.take(size, level=Level.OBJECTS)
    with pytest.raises(ValueError, match="bytes from 0"):
        Account(size)


def test_threads_never_take_more_than_the_budget_together() -> None:
    account = Account(BUDGET)

    def work(seed: int) -> int:
        most = 0
        for step in range(2000):
            try:
                with account.take((seed * 7919 + step * 104729) % 400, level=Level.OBJECTS):
                    most = max(most, account.used())
            except OverBudget:
                pass
        return most

    with ThreadPoolExecutor(8) as threads:
        most = list(threads.map(work, range(8)))
    assert max(most) <= BUDGET
    assert account.peak <= BUDGET
    assert account.used() == 0


def test_a_finalizer_may_release_while_the_account_is_busy() -> None:
    """The garbage collector can end a holder in the middle of any call, on the thread that is in it."""
    account = Account(10**6)

    class Holder:
        def __init__(self) -> None:
            self.claim = account.take(1, level=Level.OBJECTS)
            self.cycle = self

        def __del__(self) -> None:
            self.claim.release()

    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for _ in range(2000):
            Holder()
            account.entries()
    finally:
        gc.set_threshold(*threshold)
    gc.collect()
    assert account.used() == 0


class Shared:
    """What processes told, as the shared counters keep it."""

    def __init__(self) -> None:
        self.told: dict[str, int] = {}

    def of(self, process: str) -> Told:
        return Told(self, process)


class Told:
    def __init__(self, shared: Shared, process: str) -> None:
        self.shared, self.process = shared, process

    def tell(self, size: int) -> None:
        self.shared.told[self.process] = size

    def others(self) -> int:
        return sum(size for process, size in self.shared.told.items() if process != self.process)


@settings(max_examples=100, deadline=None)
@given(steps=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 400), st.booleans()), max_size=60))
def test_processes_with_one_budget_never_take_more_than_that_together(steps: list[tuple[str, int, bool]]) -> None:
    shared = Shared()
    accounts = {process: Account(BUDGET, ledger=shared.of(process)) for process in "abc"}
    claims: dict[str, list[Claim]] = {process: [] for process in accounts}
    for process, size, gives_back in steps:
        if gives_back and claims[process]:
            claims[process].pop().release()
        if size <= accounts[process].free:
            claims[process].append(accounts[process].take(size, level=Level.OBJECTS))
        else:
            with pytest.raises(OverBudget):
                accounts[process].take(size, level=Level.OBJECTS)
        held = sum(claim.size for each in claims.values() for claim in each)
        assert held <= BUDGET
        assert sum(account.used() for account in accounts.values()) == held
        assert all(account.free == BUDGET - held for account in accounts.values())


def test_weights_that_forked_processes_share_are_counted_by_each_for_itself_alone() -> None:
    shared = Shared()
    first, second = (Account(BUDGET, ledger=shared.of(process)) for process in "ab")
    first.take(600, level=Level.WEIGHTS)
    second.take(600, level=Level.WEIGHTS)
    first.take(300, level=Level.OBJECTS)
    assert (first.free, second.free) == (100, 100)
