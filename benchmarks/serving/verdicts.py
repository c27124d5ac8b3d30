"""Each target of the serving path beside what was measured. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.serving.figures import Spread
from benchmarks.serving.samples import LOOP, Sample, Samples
from benchmarks.serving.subjects import BARE, OPENCLAW
from benchmarks.targets import NOT_MEASURED, Verdict

CONNECTIONS = 16


def verdicts(samples: Samples, *, half: float | None) -> list[Verdict]:
    """All of them; `half` is half of the best peer's top rate, at which latencies were measured."""
    return [*_throughput(samples), _latency(samples, half), _image(samples), *_goodput(samples)]


def _throughput(samples: Samples) -> Iterator[Verdict]:
    for encoding, shown in (("json", "JSON"), ("binary", "binary")):
        some = samples.where(model="mlp", encoding=encoding, load="closed", level=CONNECTIONS)
        peer = some.where(kind="peer").best("rate")
        subject = f"tiny MLP, {shown}, {CONNECTIONS} connections"
        yield _at_least(8.0, f"{subject}: 8x the best peer (aim: 12x)", _ratio(some, "rate", peer), against=peer)
        yield _at_least(0.7, f"{subject}: 0.7x of the bare protocol", _ratio(some, "rate", BARE), against=BARE)


def _latency(samples: Samples, half: float | None) -> Verdict:
    target = "tiny MLP, JSON: p99 at half of the best peer's top rate at most a third of that peer's"
    some = samples.where(model="mlp", encoding="json", load="open", level=half)
    closed = samples.where(model="mlp", encoding="json", load="closed", level=CONNECTIONS, kind="peer")
    peer = closed.best("rate")
    ratio = _ratio(some, "p99", peer)
    if ratio is None:
        return Verdict(target, NOT_MEASURED, None)
    return Verdict(target, f"{_shown(ratio)} of {peer} at {half:.0f}/s", ratio.median <= 1 / 3)


def _image(samples: Samples) -> Verdict:
    target = f"ResNet50, binary, {CONNECTIONS} connections: 97 % of the bare onnxruntime loop"
    some = samples.where(model="resnet50", encoding="binary", level=CONNECTIONS)
    return _at_least(0.97, target, _ratio(some, "rate", LOOP), against=LOOP)


def _goodput(samples: Samples) -> Iterator[Verdict]:
    """Of the same arrivals, at the highest offered rate; and, as nobody has to offer that much, of each at its best."""
    offered = samples.where(model="bert", load="poisson")
    levels = [float(str(level)) for level in offered.values("level")]
    some = offered.where(level=max(levels, default=None))
    peer = Samples(each for each in some.all if each.kind == "peer" and each.batch > 1).best("goodput")
    subject = "BERT, 8 to 128 tokens, Poisson arrivals, 500 ms: goodput"
    ratio = _ratio(some, "goodput", peer, ours=_ours(some))
    yield _at_least(2.0, f"{subject} 2x the best peer's own batching", ratio, against=peer)
    best = peaks(offered)
    peer = best.where(kind="peer").best("goodput")
    ratio = _ratio(best, "goodput", peer, ours=_ours(best))
    measured = f"{_shown(ratio)} of {peer}" if ratio else NOT_MEASURED
    yield Verdict(f"{subject}, each server at the rate and in the setting that is its best", measured, None)


def peaks(samples: Samples) -> Samples:
    """Of each subject, the samples at the offered rate where its median goodput is highest."""
    kept: list[Sample] = []
    for subject in samples.values("subject"):
        own = samples.where(subject=subject)
        level = max(own.values("level"), key=lambda each: own.where(level=each).spread("goodput").median)
        kept += own.where(level=level).all
    return Samples(kept)


def _ours(samples: Samples) -> str:
    """The setting of openclaw that is its best."""
    return samples.where(kind="ours").best("goodput") or OPENCLAW


def _ratio(samples: Samples, field: str, against: str | None, *, ours: str = OPENCLAW) -> Spread | None:
    return None if against is None else samples.ratio(field, ours, against)


def _at_least(least: float, target: str, ratio: Spread | None, *, against: str | None) -> Verdict:
    if ratio is None:
        return Verdict(target, NOT_MEASURED, None)
    return Verdict(target, f"{_shown(ratio)} of {against}", ratio.median >= least)


def _shown(ratio: Spread) -> str:
    return f"{ratio.median:.2f}x ({ratio.low:.2f} to {ratio.high:.2f})"
