"""What the benchmark of tiers measures, as it is kept, shown, and held against its targets. Sizes are bytes. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from benchmarks import markdown, targets
from benchmarks.records import Origin, Record
from benchmarks.serving.figures import percentile
from benchmarks.targets import NOT_MEASURED, Verdict
from pydantic import Field

_MIB = 1 << 20
_LARGER = 1.5
_SHARED = 1.15


class Oversize(Record):
    """One model in a control group with less memory than it has weights.

    Attributes:
        limit: of the group; ``peak`` the most that it had.
        ready: seconds until the first answer.
        answered: requests, of which ``wrong`` had another answer than without a limit.
        seconds: that they took, one after the other.
        roomy: seconds of a run where there is no limit, weights packed.
    """

    model: int
    limit: int
    peak: int | None
    tier: str
    ready: float
    answered: int
    wrong: int
    seconds: float
    roomy: float


class Crowd(Record):
    """Many models in a budget for few.

    Attributes:
        answered: requests, of which ``failed`` were refused and ``wrong`` had a wrong answer.
        seconds: of all requests.
        waits: seconds that each opening of an evicted model took, by the tier that it came back in.
        latencies: seconds of requests, as clients saw them.
        resident: the most that the process had, shared pages in whole.
        limit: of the server's control group: the budget, and what the product says that it needs beside it; None: there
            was no group.
        peak: the most that the group had.
        kills: processes that the kernel ended for want of memory; None: it does not tell.
    """

    models: int
    model: int
    budget: int
    answered: int
    failed: int
    wrong: int
    seconds: float
    evictions: int
    waits: Mapping[str, tuple[float, ...]]
    latencies: tuple[float, ...]
    resident: int
    limit: int | None = None
    peak: int | None = None
    kills: int | None = None


class Workers(Record):
    """PSS of all processes of a server, by its number of workers."""

    model: int
    pss: Mapping[int, int]


_PARTS = ("oversize", "crowd", "workers")


class TierResults(Record):
    """All of it; parts may come from several runs.

    Attributes:
        machine: of the last run, with its commit and date.
        small: the models were small ones: nothing follows for the targets.
        origins: of the parts, by their names.
        verdicts: of what is here, for who reads it without this benchmark.
    """

    machine: Mapping[str, str | float]
    small: bool = False
    origins: Mapping[str, Origin] = Field(default_factory=dict)
    oversize: Oversize | None = None
    crowd: Crowd | None = None
    workers: Workers | None = None
    left_out: tuple[str, ...] = ()
    verdicts: tuple[Verdict, ...] = ()

    def joined(self, earlier: TierResults) -> TierResults:
        """With what an earlier run measured and this one did not; nothing of an earlier one with other models."""
        if earlier.small != self.small:
            return self
        parts = {name: getattr(self, name) or getattr(earlier, name) for name in _PARTS}
        return self.model_copy(update={**parts, "origins": {**earlier.origins, **self.origins}})


def verdicts(results: TierResults) -> list[Verdict]:
    """Each target beside what was measured, and at which commit if that is not the last run's."""
    found = {
        "oversize": _oversize(results.oversize),
        "crowd": _crowd(results.crowd),
        "workers": _workers(results.workers),
    }
    return [
        replace(each, measured=each.measured + _elsewhere(results, name), holds=None if results.small else each.holds)
        for name, part in found.items()
        for each in part
    ]


def _elsewhere(results: TierResults, part: str) -> str:
    origin = results.origins.get(part)
    return "" if origin is None or origin.commit == results.machine["commit"] else f"; commit {origin.commit}"


def _oversize(found: Oversize | None) -> Iterator[Verdict]:
    target = f"A model of {_LARGER}x the container's memory limit answers rightly"
    if found is None:
        yield Verdict(target, NOT_MEASURED, None)
        return
    text = (
        f"{found.model / found.limit:.2f}x of {found.limit / _MIB:.0f} MiB, {found.tier}: {found.wrong} of "
        f"{found.answered} wrong; {found.answered / found.seconds:.2f} requests/s "
        f"({1 / found.roomy:.1f} without a limit)"
    )
    yield Verdict(target, text, found.answered > 0 and not found.wrong and found.model >= _LARGER * found.limit)


def _crowd(found: Crowd | None) -> Iterator[Verdict]:
    target = "20 models of 100 MB in a budget of 600 MB: all answer, no request fails, and nothing is killed"
    if found is None:
        yield Verdict(target, NOT_MEASURED, None)
        return
    waits = [wait for each in found.waits.values() for wait in each]
    text = (
        f"{found.failed + found.wrong} of {found.answered + found.failed} failed; {found.evictions} evictions; back "
        f"after {percentile(waits, 0.5) * 1e3:.0f} ms (p50), {percentile(waits, 0.99) * 1e3:.0f} ms (p99); "
    )
    if found.limit is None or found.kills is None:
        yield Verdict(target, f"{text}without a control group that tells what was killed", None)
        return
    peak = f"{(found.peak or 0) / _MIB:.0f} of " if found.peak else ""
    text += f"{found.kills} killed, at most {peak}{found.limit / _MIB:.0f} MiB"
    fits = found.models * found.model > found.budget and not found.kills
    yield Verdict(target, text, fits and bool(waits) and not found.failed and not found.wrong)


def _workers(found: Workers | None) -> Iterator[Verdict]:
    target = f"4 workers of a 400 MB model: memory (PSS) under {_SHARED}x of one worker's"
    if found is None:
        yield Verdict(target, NOT_MEASURED, None)
        return
    ratio = found.pss[4] / found.pss[1]
    yield Verdict(target, f"{ratio:.2f}x ({found.pss[1] / _MIB:.0f} to {found.pss[4] / _MIB:.0f} MiB)", ratio < _SHARED)


def table(results: TierResults) -> str:
    """All of it as Markdown."""
    facts = results.machine
    parts = "; ".join(f"{name}: commit {each.commit}, {each.date}" for name, each in results.origins.items())
    lines = [
        "# Tiers of models\n",
        f"{facts['cpu']}, {facts['cores']} cores; {facts['engine']}. {parts or 'Nothing was measured'}.\n",
        *(["The models are small ones: nothing follows for the targets.\n"] if results.small else []),
        targets.table(verdicts(results)),
        *[f"Left out: {each.splitlines()[0]}\n" for each in results.left_out],
    ]
    if crowd := results.crowd:
        rows = [
            [tier, str(len(waits)), *(f"{percentile(waits, share) * 1e3:.0f}" for share in (0.5, 0.99, 1.0))]
            for tier, waits in crowd.waits.items()
            if waits
        ]
        lines += ["## Models that came back from disk\n", "Milliseconds until the model was open again.\n"]
        lines.append(markdown.table(["In tier", "Times", "p50", "p99", "most"], rows))
        seen = crowd.latencies
        lines.append(
            f"{crowd.answered / crowd.seconds:.0f} requests/s of mixed requests; as clients saw them "
            f"{percentile(seen, 0.5) * 1e3:.0f} ms (p50), {percentile(seen, 0.99) * 1e3:.0f} ms (p99); resident at "
            f"most {crowd.resident / _MIB:.0f} MiB.\n"
        )
    return "\n".join(lines)
