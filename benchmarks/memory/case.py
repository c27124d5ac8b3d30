"""One model at one batch: what its engines hold, what their processes take, and how long they take by turns."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.graph.families import Family
from benchmarks.graph.run import ROOT
from benchmarks.memory.forms import Forms
from benchmarks.memory.groups import group
from benchmarks.memory.records import Case, Held, Measured, Planned
from benchmarks.memory.settings import CHOSEN, LOWER
from benchmarks.memory.turns import by_turns
from benchmarks.records import Origin

from openclaw.errors import OpenClawError
from openclaw.inspection.memory import plan_of
from openclaw.memory.choice import DEFAULT
from openclaw.memory.profile import ArenaUse
from openclaw.optimizer.measuring.timing import Plan

_TURNS = 21
_LIMIT = 300  # seconds that a process may take


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is spent on a case.

    Attributes:
        rounds: processes of each engine, by turns.
        seconds: that each of them runs.
        small: models of a few kilobytes: whether all works.
        asked: of the memory that is chosen, ``auto`` or ``least``.
        parent: where control groups are made.
    """

    rounds: int
    seconds: float
    small: bool
    asked: str
    parent: Path | None

    @property
    def turns(self) -> Plan:
        """For the clock, where engines are timed by turns."""
        rounds = 2 if self.small else _TURNS
        return Plan(rounds=rounds, least=min(5, rounds), slice_seconds=0.15, seconds=0.5 if self.small else 12.0)


def measured(
    family: Family, forms: Forms, batch: int, *, effort: Effort, origin: Origin, say: Callable[[str], None]
) -> Case:
    """All of a case."""
    title = f"{family.name}, batch {batch}"
    feed = family.feeds(batch, small=effort.small)[0]
    inputs = forms.folder / f"feed-{batch}.npz"
    np.savez(inputs, allow_pickle=False, **feed)
    say(f"{title}: choosing how activations are held")
    chosen = {
        DEFAULT: (forms.file, DEFAULT),
        CHOSEN: forms.chosen(feed, asked=effort.asked),
        LOWER: forms.lowered(feed, asked=effort.asked),
    }
    files = {name: file for name, (file, _) in chosen.items()}
    common = [str(inputs), "--threads", str(forms.threads)]
    calls = {name: [str(file), *common, *(["--plain"] if name == DEFAULT else [])] for name, file in files.items()}
    say(f"{title}: what the arenas hold")
    uses = {name: ArenaUse(**_told([*call, "--profile"])) for name, call in calls.items()}
    rounds = _rounds(title, calls, effort=effort, say=say)
    say(f"{title}: by turns")
    turns = by_turns(files, feed, threads=forms.threads, plan=effort.turns)
    plan = plan_of(forms.exported, name=family.name, shapes={name: each.shape for name, each in feed.items()}).plan
    return Case(
        title=family.title,
        batch=batch,
        origin=origin,
        plan=Planned(arena=plan.arena_bytes, lower_bound=plan.lower_bound_bytes, fragmentation=plan.fragmentation),
        lower=forms.kept,
        turns=turns,
        measured={name: _measured(way, uses[name], rounds[name]) for name, (_, way) in chosen.items()},
    )


def _measured(way: str, use: ArenaUse, told: Sequence[Mapping[str, Any]]) -> Measured:
    return Measured(
        way=way,
        arena=Held(held=use.held, most=use.most_held, in_use=use.most_in_use),
        seconds=tuple(each["seconds"] for each in told),
        pss=tuple(each["pss"] for each in told),
        peak=tuple(each["peak"] for each in told),
        group_peak=tuple(each["group_peak"] for each in told if each["group_peak"] is not None),
    )


def _rounds(
    title: str, calls: Mapping[str, Sequence[str]], *, effort: Effort, say: Callable[[str], None]
) -> dict[str, list[dict[str, Any]]]:
    """What every engine told in every round; the order within a round is a random one."""
    order = random.Random(0)
    told: dict[str, list[dict[str, Any]]] = {name: [] for name in calls}
    for number in range(effort.rounds):
        say(f"{title}: round {number + 1} of {effort.rounds}")
        names = list(calls)
        order.shuffle(names)
        for name in names:
            with group(effort.parent, f"openclaw-bench-{number}") as folder:
                more = ["--group", str(folder)] if folder else []
                told[name].append(_told([*calls[name], "--seconds", str(effort.seconds), *more]))
    return told


def _told(call: Sequence[str]) -> dict[str, Any]:
    """What an engine's process prints."""
    command = [sys.executable, "-m", "benchmarks.memory.engine", *call]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=_LIMIT, check=False)
    if done.returncode:
        raise OpenClawError(f"an engine ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    told: dict[str, Any] = json.loads(done.stdout)
    return told
