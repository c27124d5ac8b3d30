"""Each target of the memory manager beside what was measured. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from benchmarks.graph.figures import Ratio, ratio
from benchmarks.memory.records import Case, Results
from benchmarks.memory.settings import CHOSEN, LOWER
from benchmarks.targets import NOT_MEASURED, Verdict

from openclaw.memory.choice import DEFAULT

_HELD = 0.5
_PROCESS, _STREAM = 0.4, 0.32
_SLOWER = 1.03
_SAME = 1.01  # pages that a loader happens to touch differ by about as much
_FRAGMENTED, _RANDOM = 0.03, 0.01
_PLANNING = 0.1  # seconds


def verdicts(results: Results) -> list[Verdict]:
    """All of them."""
    cases = [each for each in results.cases.values() if {DEFAULT, CHOSEN} <= set(each.measured)]
    return [
        *_held(cases),
        *_latency(cases),
        *_processes(cases),
        *_lower(cases),
        *_plans(results),
        *_planning(results),
    ]


def held(case: Case, name: str) -> float | None:
    """What the arena held with this arena, through what the default's held."""
    mine, default = case.measured.get(name), case.measured.get(DEFAULT)
    return mine.arena.held / default.arena.held if mine and default and default.arena.held else None


def resident(case: Case) -> float | None:
    """What the process has after the runs with the chosen arena, through what it has with the default's."""
    mine, default = case.measured[CHOSEN].pss, case.measured[DEFAULT].pss
    return statistics.median(mine) / statistics.median(default) if mine and default else None


def most(case: Case, name: str) -> float | None:
    """The most that the process ever had with this engine, through the default's: what its control group counted if
    there was one for both, else what was resident.
    """
    mine, default = case.measured.get(name), case.measured.get(DEFAULT)
    if mine is None or default is None:
        return None
    grouped = bool(mine.group_peak and default.group_peak)
    figures = (mine.group_peak, default.group_peak) if grouped else (mine.peak, default.peak)
    return statistics.median(figures[0]) / statistics.median(figures[1]) if all(figures) else None


def slower(case: Case, name: str) -> Ratio | None:
    """The latency with this arena, through the default's, round by round."""
    mine, default = case.turns.get(name), case.turns.get(DEFAULT)
    return ratio(mine, default) if mine and default else None


def _held(cases: list[Case]) -> Iterator[Verdict]:
    found = {f"{case.title}, batch {case.batch}": share for case in cases if (share := held(case, CHOSEN)) is not None}
    targets = (
        f"Activation memory held at most {_HELD}x of the default's, in the median",
        "Never more than the default's",
    )
    if not found:
        yield from (Verdict(target, NOT_MEASURED, None) for target in targets)
        return
    median = statistics.median(found.values())
    yield Verdict(targets[0], f"{median:.2f}x, {len(found)} cases", median <= _HELD)
    worst = max(found, key=lambda name: found[name])
    yield Verdict(targets[1], f"at worst {found[worst]:.2f}x: {worst}", found[worst] <= 1)


def _processes(cases: list[Case]) -> Iterator[Verdict]:
    target = "The whole process has no more than with the default's arena (PSS)"
    found = {f"{case.title}, batch {case.batch}": share for case in cases if (share := resident(case)) is not None}
    if not found:
        yield Verdict(target, NOT_MEASURED, None)
        return
    worst = max(found, key=lambda name: found[name])
    median = statistics.median(found.values())
    told = f"{median:.2f}x in the median, at worst {found[worst]:.2f}x: {worst}"
    yield Verdict(target, told, found[worst] <= _SAME)


def _latency(cases: list[Case]) -> Iterator[Verdict]:
    target = f"Latency at most {_SLOWER}x of the default's"
    found = {f"{case.title}, batch {case.batch}": each for case in cases if (each := slower(case, CHOSEN)) is not None}
    if not found:
        yield Verdict(target, NOT_MEASURED, None)
        return
    worst = max(found, key=lambda name: found[name].median)
    yield Verdict(target, f"at worst {found[worst]}: {worst}", found[worst].median <= _SLOWER)


def _lower(cases: list[Case]) -> Iterator[Verdict]:
    found = [(case, share) for case in cases if (share := most(case, LOWER)) is not None]
    target = f"The whole process at its peak, in the precision that the guard allows: at most {_PROCESS}x in the median"
    if found:
        shares = {f"{case.title}, batch {case.batch}": share for case, share in found}
        median, worst = statistics.median(shares.values()), max(shares, key=lambda name: shares[name])
        told = f"{median:.2f}x, {len(shares)} cases, at worst {shares[worst]:.2f}x: {worst}"
        yield Verdict(target, told, median <= _PROCESS)
    else:
        yield Verdict(target, NOT_MEASURED, None)
    target = f"The same of ResNet50 with 16 frames at once: at most {_STREAM}x"
    stream = next((share for case, share in found if case.title == "ResNet50" and case.batch == 16), None)
    if stream is None:
        yield Verdict(target, NOT_MEASURED, None)
    else:
        yield Verdict(target, f"{stream:.2f}x", stream <= _STREAM)


def _plans(results: Results) -> Iterator[Verdict]:
    target = f"Fragmentation of the plan under {_FRAGMENTED:.0%} on every net"
    found = {f"{case.title}, batch {case.batch}": case.plan.fragmentation for case in results.cases.values()}
    if not found:
        yield Verdict(target, NOT_MEASURED, None)
        return
    worst = max(found, key=lambda name: found[name])
    yield Verdict(target, f"at worst {found[worst]:.2%}: {worst} (of {len(found)})", found[worst] < _FRAGMENTED)


def _planning(results: Results) -> Iterator[Verdict]:
    done = results.planning
    targets = (
        f"Under {_RANDOM:.0%} in the median of random lifetimes",
        f"A plan of {done.tensors:,} tensors takes under {_PLANNING * 1e3:.0f} ms" if done else "Time of a plan",
    )
    if done is None:
        yield from (Verdict(target, NOT_MEASURED, None) for target in targets)
        return
    median, worst = statistics.median(done.fragmentation), max(done.fragmentation)
    told = f"{median:.2%}, at worst {worst:.2%}, {len(done.fragmentation)} sets"
    yield Verdict(targets[0], told, median < _RANDOM)
    seconds = statistics.median(done.seconds)
    told = f"{seconds * 1e3:.0f} ms ({min(done.seconds) * 1e3:.0f} to {max(done.seconds) * 1e3:.0f})"
    yield Verdict(targets[1], told, seconds < _PLANNING)
