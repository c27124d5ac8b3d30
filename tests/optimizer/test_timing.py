"""Timing in turns: who runs when, and what a round counts."""

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw.optimizer.measuring.timing import TRIES, Plan, Spread, compare, paired

PLAN = Plan(rounds=9, least=4, slice_seconds=0.01, seconds=1.0)


class Machine:
    """A machine with a clock of its own, on which forms take as long as they are told."""

    def __init__(self) -> None:
        self.now = 0.0
        self.ran: list[str] = []

    def clock(self) -> float:
        return self.now

    def form(self, name: str, seconds: float, *, first: float = 0.0) -> "Form":
        return Form(self, name, seconds=seconds, first=first)


class Form:
    """Takes ``seconds`` a run, and ``first`` more after another form ran."""

    def __init__(self, machine: Machine, name: str, *, seconds: float, first: float) -> None:
        self._machine, self._name, self._seconds, self._first = machine, name, seconds, first

    def run_unchecked(self, feed: object) -> None:
        cold = not self._machine.ran or self._machine.ran[-1] != self._name
        self._machine.now += self._seconds + (self._first if cold else 0)
        self._machine.ran.append(self._name)


def timed(machine: Machine, forms: Mapping[str, Form], feeds: Sequence[object] = ({},), **more: object) -> dict:
    return compare(forms, feeds, seed=0, clock=machine.clock, **{"plan": PLAN, **more})  # type: ignore[arg-type]


def test_every_round_gives_every_form_one_figure_and_it_is_the_time_of_a_run() -> None:
    machine = Machine()
    rounds = timed(machine, {"a": machine.form("a", 0.002), "b": machine.form("b", 0.004)})
    assert rounds["a"] == pytest.approx([0.002] * 9)
    assert rounds["b"] == pytest.approx([0.004] * 9)


def test_the_first_run_after_another_form_does_not_count() -> None:
    machine = Machine()
    forms = {"a": machine.form("a", 0.002, first=0.05), "b": machine.form("b", 0.004, first=0.05)}
    assert timed(machine, forms)["a"] == pytest.approx([0.002] * 9)


def test_a_run_so_long_that_nothing_lasts_in_the_caches_is_not_repeated() -> None:
    machine = Machine()
    timed(machine, {"a": machine.form("a", 0.3)}, plan=Plan(rounds=4, least=4, slice_seconds=0.01, seconds=100))
    assert len(machine.ran) == 1 + 4


def test_forms_take_turns_in_an_order_that_changes() -> None:
    machine = Machine()
    timed(machine, {name: machine.form(name, 0.02) for name in "abc"})
    turns = [name for index, name in enumerate(machine.ran) if index == 0 or machine.ran[index - 1] != name]
    assert len({tuple(turns[index : index + 3]) for index in range(3, len(turns) - 2, 3)}) > 1


def test_time_that_is_up_ends_it_but_not_before_the_least_rounds() -> None:
    machine = Machine()
    plan = Plan(rounds=50, least=4, slice_seconds=0.01, seconds=0.5)
    assert len(timed(machine, {"a": machine.form("a", 10.0)}, plan=plan)["a"]) == 4
    assert 4 <= len(timed(machine, {"a": machine.form("a", 0.02)}, plan=plan)["a"]) < 50


def test_it_ends_when_told_that_more_rounds_are_a_waste() -> None:
    machine = Machine()
    rounds = timed(machine, {"a": machine.form("a", 0.02)}, stop=lambda seen: len(seen["a"]) == 3)
    assert len(rounds["a"]) == 3


def test_a_pass_runs_every_feed_and_the_figure_is_for_one() -> None:
    machine = Machine()
    rounds = timed(machine, {"a": machine.form("a", 0.002)}, feeds=[{}, {}, {}])
    assert rounds["a"] == pytest.approx([0.002] * 9)


def pairs(machine: Machine, mine: Form, default: Form, **more: object) -> tuple[list[float], list[float]]:
    return paired(mine, default, {}, seed=0, clock=machine.clock, **{"plan": PLAN, **more})  # type: ignore[arg-type]


def test_a_pair_has_as_many_rounds_of_both() -> None:
    machine = Machine()
    plan = Plan(rounds=9, least=9, slice_seconds=0.01, seconds=0)
    a, b = machine.form("a", 0.002, first=0.05), machine.form("b", 0.004, first=0.05)
    mine, default = pairs(machine, a, b, plan=plan)
    assert (mine, default) == (pytest.approx([0.002] * 9), pytest.approx([0.004] * 9))


def test_one_of_a_pair_runs_between_two_of_the_other_and_which_is_drawn() -> None:
    machine = Machine()
    plan = Plan(rounds=20, least=20, slice_seconds=0.01, seconds=100)
    pairs(machine, machine.form("a", 0.3), machine.form("b", 0.3), plan=plan)
    rounds = {"".join(machine.ran[index : index + 3]) for index in range(0, 60, 3)}
    assert rounds == {"aba", "bab"}


class Busy(Machine):
    """A machine that is slower by half for seven seconds of every twenty."""

    def form(self, name: str, seconds: float, *, first: float = 0.0) -> Form:
        machine = self

        class Slowed(Form):
            def run_unchecked(self, feed: object) -> None:
                machine.now += seconds / 2 if machine.now % 20 < 7 else 0
                super().run_unchecked(feed)

        return Slowed(self, name, seconds=seconds, first=first)


def test_a_machine_that_changes_its_speed_is_the_same_for_both_of_a_pair() -> None:
    machine = Busy()
    plan = Plan(rounds=50, least=50, slice_seconds=0.01, seconds=0)
    mine, default = pairs(machine, machine.form("a", 0.5), machine.form("b", 0.5), plan=plan)
    assert {0.5, 0.75} <= set(default)
    same = sum(one == pytest.approx(other) for one, other in zip(mine, default, strict=True))
    assert same >= 48
    assert len(machine.ran) > 150, "rounds in which it changed were run again"


def test_a_machine_that_never_rests_costs_a_pair_no_more_than_so_many_tries() -> None:
    machine = Machine()

    class Slower(Form):
        def run_unchecked(self, feed: object) -> None:
            machine.now += 0.2 * len(machine.ran)
            super().run_unchecked(feed)

    a, b = (Slower(machine, name, seconds=0.3, first=0.0) for name in "ab")
    mine, default = pairs(machine, a, b, plan=Plan(rounds=2, least=2, slice_seconds=0.01, seconds=0))
    assert (len(mine), len(default)) == (2, 2)
    assert 2 * 3 < len(machine.ran) <= 2 * 3 * TRIES


def test_time_that_is_up_ends_a_pair_but_not_before_the_least_rounds() -> None:
    machine = Machine()
    plan = Plan(rounds=50, least=4, slice_seconds=0.01, seconds=0.5)
    assert len(pairs(machine, machine.form("a", 10.0), machine.form("b", 10.0), plan=plan)[0]) == 4


@given(st.lists(st.floats(1e-6, 10), min_size=1, max_size=30))
def test_the_median_lies_between_its_quartiles(rounds: list[float]) -> None:
    spread = Spread.of(rounds)
    assert spread.quartiles[0] <= spread.median * (1 + 1e-9)
    assert spread.median <= spread.quartiles[1] * (1 + 1e-9)
