"""What the benchmark of tiers measures, as it is kept, shown, and held against its targets. Sizes are bytes. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from benchmarks import markdown, targets
from benchmarks.records import Record
from benchmarks.serving.figures import percentile
from benchmarks.targets import NOT_MEASURED, Verdict

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


class Workers(Record):
    """PSS of all processes of a server, by its number of workers."""

    model: int
    pss: Mapping[int, int]


class TierResults(Record):
    """All of it."""

    machine: Mapping[str, str | float]
    oversize: Oversize | None = None
    crowd: Crowd | None = None
    workers: Workers | None = None
    left_out: tuple[str, ...] = ()

    def joined(self, earlier: TierResults) -> TierResults:
        """With what an earlier run measured and this one did not."""
        parts = ("oversize", "crowd", "workers")
        return self.model_copy(update={name: getattr(self, name) or getattr(earlier, name) for name in parts})


def verdicts(results: TierResults) -> list[Verdict]:
    """Each target beside what was measured."""
    return [*_oversize(results.oversize), *_crowd(results.crowd), *_workers(results.workers)]


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
    target = "20 models of 100 MB in a budget of 600 MB: all answer, no request fails"
    if found is None:
        yield Verdict(target, NOT_MEASURED, None)
        return
    waits = [wait for each in found.waits.values() for wait in each]
    text = (
        f"{found.failed + found.wrong} of {found.answered + found.failed} failed; {found.evictions} evictions; back "
        f"after {percentile(waits, 0.5) * 1e3:.0f} ms (p50), {percentile(waits, 0.99) * 1e3:.0f} ms (p99)"
    )
    fits = found.models * found.model > found.budget
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
    lines = [
        "# Tiers of models\n",
        f"{facts['cpu']}, {facts['cores']} cores; {facts['engine']}; commit {facts['commit']}; {facts['date']}.\n",
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
