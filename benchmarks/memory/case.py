"""One model at one batch: what its engines hold, what their processes take, and how long they take by turns."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.graph.families import Family
from benchmarks.graph.families.drawing import Feed
from benchmarks.graph.run import ROOT
from benchmarks.memory.forms import LEAST, Forms
from benchmarks.memory.groups import group, inside, most
from benchmarks.memory.records import Case, Held, Measured, Planned
from benchmarks.memory.settings import CHOSEN, LOWER, MOST_SITTINGS, SITTINGS
from benchmarks.memory.turns import by_turns
from benchmarks.records import Origin

from openclaw.errors import OpenClawError
from openclaw.inspection.memory import plan_of
from openclaw.memory.choice import DEFAULT
from openclaw.optimizer.measuring.timing import Plan

_TURNS = 10
_LIMIT = 300  # seconds that a process may take


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is spent on a case.

    Attributes:
        rounds: processes of each engine, by turns.
        seconds: that each of them runs.
        small: models of a few kilobytes: whether all works.
        asked: of the memory that is chosen, ``auto`` or ``least``.
        choosing: seconds after which no further way to hold activations is measured, for each engine.
        parent: where control groups are made; None: there are none on this machine.
    """

    rounds: int
    seconds: float
    small: bool
    asked: str
    choosing: float
    parent: Path | None

    @property
    def turns(self) -> Plan:
        """For the clock, where engines are timed by turns: of each sitting."""
        return Plan(rounds=2 if self.small else _TURNS, least=2, slice_seconds=0.08, seconds=0.2 if self.small else 8.0)


def measured(
    family: Family, forms: Forms, batch: int, *, effort: Effort, origin: Origin, say: Callable[[str], None]
) -> Case:
    """All of a case."""
    title, began = f"{family.name}, batch {batch}", time.perf_counter()
    feed = family.feeds(batch, small=effort.small)[0]
    inputs = forms.folder / f"feed-{batch}.npz"
    np.savez(inputs, allow_pickle=False, **feed)
    chosen = _chosen(title, forms, feed, effort=effort, say=say)
    files = {name: file for name, (file, _) in chosen.items()}
    common = [str(inputs), "--threads", str(forms.threads)]
    calls = {name: [str(file), *common, *(["--plain"] if name == DEFAULT else [])] for name, file in files.items()}
    say(f"{title}: what the arenas hold")
    uses = {name: told([*call, "--profile"]) for name, call in calls.items()}
    rounds = _rounds(title, calls, effort=effort, say=say)
    say(f"{title}: by turns")
    turns = {
        name: by_turns(files[name], files[DEFAULT], feed, threads=forms.threads, plan=effort.turns, sittings=sittings)
        for name, sittings in ((CHOSEN, MOST_SITTINGS), (LOWER, SITTINGS))
    }
    say(f"{title}: after {time.perf_counter() - began:.0f} s")
    plan = plan_of(forms.exported, name=family.name, shapes={name: each.shape for name, each in feed.items()}).plan
    return Case(
        title=family.title,
        batch=batch,
        origin=origin,
        plan=Planned(arena=plan.arena_bytes, lower_bound=plan.lower_bound_bytes, fragmentation=plan.fragmentation),
        lower=forms.told,
        turns=turns,
        measured={name: _measured(way, uses[name], rounds[name]) for name, (_, way) in chosen.items()},
    )


def _chosen(
    title: str, forms: Forms, feed: Feed, *, effort: Effort, say: Callable[[str], None]
) -> dict[str, tuple[Path, str]]:
    """The file of each engine, and the way in which it holds activations."""
    say(f"{title}: choosing how activations are held")
    chosen = forms.chosen(feed, asked=effort.asked, seconds=effort.choosing)
    say(f"{title}: {CHOSEN}: {chosen[1]}")
    # The exported model again, and the same asked of its memory: what was chosen is the answer.
    same = forms.told.recipe is None and effort.asked == LEAST
    lower = chosen if same else forms.lowered(feed, seconds=effort.choosing)
    say(f"{title}: {LOWER}: {lower[1]}")
    return {DEFAULT: (forms.file, DEFAULT), CHOSEN: chosen, LOWER: lower}


def _measured(way: str, use: Mapping[str, int], rounds: Sequence[Mapping[str, Any]]) -> Measured:
    return Measured(
        way=way,
        arena=Held(held=use["held"], most=use["most_held"], in_use=use["most_in_use"], outside=use["outside"]),
        seconds=tuple(each["seconds"] for each in rounds),
        pss=tuple(each["pss"] for each in rounds),
        peak=tuple(each["peak"] for each in rounds),
        group_peak=tuple(each["group_peak"] for each in rounds if each["group_peak"] is not None),
    )


def _rounds(
    title: str, calls: Mapping[str, Sequence[str]], *, effort: Effort, say: Callable[[str], None]
) -> dict[str, list[dict[str, Any]]]:
    """What every engine told in every round; the order within a round is a random one."""
    order = random.Random(0)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in calls}
    for number in range(effort.rounds):
        say(f"{title}: round {number + 1} of {effort.rounds}")
        names = list(calls)
        order.shuffle(names)
        for name in names:
            with group(effort.parent, "engine") as cell:
                found[name].append(told([*calls[name], "--seconds", str(effort.seconds)], cell=cell))
    return found


def told(call: Sequence[str], *, cell: Path | None = None) -> dict[str, Any]:
    """What an engine's process prints, and ``group_peak``: the most that its control group had, None without one.

    Raises:
        OpenClawError: the engine failed.
    """
    command = inside([sys.executable, "-m", "benchmarks.memory.engine", *call], cell)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=_LIMIT, check=False)
    if done.returncode:
        raise OpenClawError(f"an engine ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed | {"group_peak": most(cell)}
