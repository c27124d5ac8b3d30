"""Each target of the memory manager beside what was measured. Pure.

A target is of all nets at both batches, measured at one commit: whether it holds is not said of fewer, or of cases that
earlier runs left, or of small models.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from typing import TypeVar

from benchmarks.graph.figures import Ratio, ratio
from benchmarks.memory.records import Case, Results
from benchmarks.memory.settings import CASES, CHOSEN, LOWER, key
from benchmarks.targets import NOT_MEASURED, Verdict

from openclaw.memory.choice import DEFAULT

_HELD = 0.5
_PROCESS, _STREAM = 0.4, 0.32
_SLOWER = 1.03
_SAME = 1.01  # pages that a loader happens to touch differ by about as much
_FRAGMENTED, _RANDOM = 0.03, 0.01
_PLANNING = 0.1  # seconds
_FRAMES = key("resnet50", 16)
_NAMED = 3  # of the cases that are missing
_Figure = TypeVar("_Figure")


def verdicts(results: Results) -> list[Verdict]:
    """All of them."""
    told = [
        *_held(results),
        *_latency(results),
        *_processes(results),
        *_lower(results),
        *_plans(results),
        *_planning(results),
    ]
    return [replace(each, holds=None) for each in told] if results.small else told


def held(case: Case, name: str) -> float | None:
    """What is held of activations by this engine, through what the default holds."""
    mine, default = case.measured.get(name), case.measured.get(DEFAULT)
    return mine.arena.whole / default.arena.whole if mine and default and default.arena.whole else None


def resident(case: Case, name: str) -> float | None:
    """What the process has after the runs with this engine, through what it has with the default."""
    mine, default = case.measured.get(name), case.measured.get(DEFAULT)
    return statistics.median(mine.pss) / statistics.median(default.pss) if mine and default else None


def grouped(case: Case) -> bool:
    """Whether each engine's processes had a control group, which then tells of their peak."""
    return all(each.group_peak for each in case.measured.values())


def peak(case: Case, name: str) -> float | None:
    """Bytes: the most that the process ever had with this engine, the median of the rounds: what its control group
    counted if there was one for all engines, else what was resident.
    """
    mine = case.measured.get(name)
    return None if mine is None else statistics.median(mine.group_peak if grouped(case) else mine.peak)


def most(case: Case, name: str) -> float | None:
    """The same through the default's."""
    mine, default = peak(case, name), peak(case, DEFAULT)
    return mine / default if mine is not None and default else None


def slower(case: Case, name: str) -> Ratio | None:
    """The latency with this engine, through the default's, round by round."""
    turns = case.turns.get(name)
    return None if turns is None else ratio(turns.mine, turns.default)


def _found(results: Results, figure: Callable[[Case], _Figure | None]) -> dict[str, _Figure]:
    """A figure of all cases that targets are of, by their keys."""
    every = {name: figure(results.cases[name]) for name in CASES if name in results.cases}
    return {name: each for name, each in every.items() if each is not None}


def _judged(
    target: str, measured: str, holds: bool, *, results: Results, found: Collection[str], of: Collection[str] = CASES
) -> Verdict:
    """The verdict, if it can be told from what was found of these cases; else why it cannot."""
    missing = [CASES[name] for name in of if name not in found]
    others = [f"{CASES[name]} ({each})" for name in of if name in found and (each := _other(results, name))]
    doubts = []
    if missing:
        more = f" and {len(missing) - _NAMED} others" if len(missing) > _NAMED else ""
        names = ", ".join(missing[:_NAMED])
        doubts.append(f"{len(of) - len(missing)} of {len(of)} cases: {names}{more} missing")
    if others:
        doubts.append(f"of another commit than {results.commit}: {', '.join(others)}")
    return Verdict(target, "; ".join([measured, *doubts]), None if doubts else holds)


def _other(results: Results, name: str) -> str | None:
    """The commit of a case, if it is not the run's."""
    commit = results.cases[name].origin.commit
    return None if commit == results.commit else commit


def _worst(found: dict[str, float]) -> str:
    return max(found, key=lambda name: found[name])


def _held(results: Results) -> Iterator[Verdict]:
    found = _found(results, lambda case: held(case, CHOSEN))
    targets = (
        f"Activation memory held at most {_HELD}x of the default's, in the median",
        "Never more than the default's",
    )
    if not found:
        yield from (Verdict(target, NOT_MEASURED, None) for target in targets)
        return
    median, worst = statistics.median(found.values()), _worst(found)
    yield _judged(targets[0], f"{median:.2f}x", median <= _HELD, results=results, found=found)
    told = f"at worst {found[worst]:.2f}x: {CASES[worst]}"
    yield _judged(targets[1], told, found[worst] <= 1, results=results, found=found)


def _latency(results: Results) -> Iterator[Verdict]:
    target = f"Latency at most {_SLOWER}x of the default's"
    found = _found(results, lambda case: slower(case, CHOSEN))
    if not found:
        yield Verdict(target, NOT_MEASURED, None)
        return
    worst = max(found, key=lambda name: found[name].median)
    told = f"at worst {found[worst]}: {CASES[worst]}"
    yield _judged(target, told, found[worst].median <= _SLOWER, results=results, found=found)


def _processes(results: Results) -> Iterator[Verdict]:
    target = "The whole process has no more than with the default's arena (PSS)"
    found = _found(results, lambda case: resident(case, CHOSEN))
    if not found:
        yield Verdict(target, NOT_MEASURED, None)
        return
    median, worst = statistics.median(found.values()), _worst(found)
    told = f"{median:.2f}x in the median, at worst {found[worst]:.2f}x: {CASES[worst]}"
    yield _judged(target, told, found[worst] <= _SAME, results=results, found=found)


def _lower(results: Results) -> Iterator[Verdict]:
    found = _found(results, lambda case: most(case, LOWER))
    targets = (
        f"The whole process at its peak, in the precision that the guard allows: at most {_PROCESS}x in the median",
        f"The same of ResNet50 with 16 frames at once: at most {_STREAM}x",
    )
    if not found:
        yield from (Verdict(target, NOT_MEASURED, None) for target in targets)
        return
    median, worst = statistics.median(found.values()), _worst(found)
    exact = sum(results.cases[name].lower.precision == "fp32" for name in found)
    told = f"{median:.2f}x, at worst {found[worst]:.2f}x: {CASES[worst]}; {exact} of {len(found)} stayed fp32"
    if paces := _found(results, lambda case: slower(case, LOWER)):
        slowest = max(paces, key=lambda name: paces[name].median)
        told += f"; latency at worst {paces[slowest].median:.2f}x: {CASES[slowest]}"
    yield _judged(targets[0], told, median <= _PROCESS, results=results, found=found)
    if _FRAMES not in found:
        yield Verdict(targets[1], NOT_MEASURED, None)
        return
    told = f"{found[_FRAMES]:.2f}x, {results.cases[_FRAMES].lower.precision}"
    yield _judged(targets[1], told, found[_FRAMES] <= _STREAM, results=results, found=found, of=(_FRAMES,))


def _plans(results: Results) -> Iterator[Verdict]:
    target = f"Fragmentation of the plan under {_FRAGMENTED:.0%} on every net"
    found = _found(results, lambda case: case.plan.fragmentation)
    if not found:
        yield Verdict(target, NOT_MEASURED, None)
        return
    worst = _worst(found)
    told = f"at worst {found[worst]:.2%}: {CASES[worst]}"
    yield _judged(target, told, found[worst] < _FRAGMENTED, results=results, found=found)


def _planning(results: Results) -> Iterator[Verdict]:
    done = results.planning
    many, limit = f"{done.tensors:,} " if done else "", f"under {_PLANNING * 1e3:.0f} ms"
    targets = (
        f"Fragmentation under {_RANDOM:.0%} in the median of random lifetimes",
        f"A plan of {many}tensors with given lifetimes takes {limit}",
        f"A plan of a graph with {many}tensors, lifetimes and order of execution with it, takes {limit}",
    )
    if done is None:
        yield from (Verdict(target, NOT_MEASURED, None) for target in targets)
        return
    known = done.origin.commit == results.commit
    doubt = "" if known else f"; of another commit than {results.commit}: {done.origin.commit}"
    median, worst = statistics.median(done.fragmentation), max(done.fragmentation)
    told = f"{median:.2%}, at worst {worst:.2%}, {len(done.fragmentation)} sets"
    yield Verdict(targets[0], told + doubt, median < _RANDOM if known else None)
    for target, took in zip(targets[1:], (done.seconds, done.graph_seconds), strict=True):
        seconds = statistics.median(took)
        told = f"{seconds * 1e3:.0f} ms ({min(took) * 1e3:.0f} to {max(took) * 1e3:.0f})"
        yield Verdict(target, told + doubt, seconds < _PLANNING if known else None)
