"""The guard: what a form's answers may lose, written as a budget, and whether it stays within.

A budget is bounds separated by commas, as ``top1>=0.998`` or ``cosine>=0.99,cosine-worst>=0.98``; ``metric`` is the
user's own. All of them must hold. What nobody stated follows from the kind of the outputs (:func:`default_budget`).
"""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from openclaw.errors import ConfigInvalid
from openclaw.optimizer.accuracy import metrics
from openclaw.optimizer.accuracy.metrics import Answers
from openclaw.optimizer.accuracy.padding import without_padding
from openclaw.optimizer.recipe import Feed

Array = npt.NDArray[np.generic]
UserMetric = Callable[[dict[str, Array], dict[str, Array]], float]

LOSSLESS = 1e-4
"""How far outputs of a lossless form may be from the exported model's, by the metric ``relative``."""

_BOUND = re.compile(r"\s*(?P<metric>[a-z][a-z0-9-]*)\s*(?P<relation>>=|<=)\s*(?P<limit>[^\s]+)\s*")
_OWN = "metric"


@dataclass(frozen=True)
class Bound:
    """One condition: ``metric`` is at least (``>=``) or at most (``<=``) ``limit``."""

    metric: str
    relation: str
    limit: float

    def holds(self, value: float) -> bool:
        """Whether ``value`` satisfies it; NaN never does."""
        return value >= self.limit if self.relation == ">=" else value <= self.limit

    def used(self, value: float, perfect: float) -> float:
        """The share of the allowance that ``value`` uses up: 0 as the reference itself, 1 at the limit."""
        allowance = abs(self.limit - perfect)
        lost = perfect - value if self.relation == ">=" else value - perfect
        if math.isnan(lost):
            return math.inf
        return max(0.0, lost) / max(allowance, 1e-9)

    def __str__(self) -> str:
        return f"{self.metric}{self.relation}{self.limit:g}"


@dataclass(frozen=True)
class Verdict:
    """What the guard found: the value of every metric, the share of the budget that is used, and what is broken."""

    values: Mapping[str, float]
    used: float
    broken: tuple[str, ...] = ()

    @property
    def within(self) -> bool:
        """Whether all bounds hold."""
        return not self.broken


@dataclass(frozen=True)
class Budget:
    """Bounds that must all hold; ``own`` computes ``metric``."""

    bounds: tuple[Bound, ...]
    own: UserMetric | None = None

    def judge(self, reference: Answers, candidate: Answers, feeds: Sequence[Feed] = ()) -> Verdict:
        """Holds answers against the bounds; those of other shapes or types, or not finite elsewhere, break all.

        Args:
            reference: of the exported model.
            candidate: of a form of it, to the same inputs.
            feeds: these inputs; if they are given, positions that they mask do not count, but for the user's metric.
        """
        if (reason := incomparable(reference, candidate)) is not None:
            return Verdict({}, math.inf, (reason,))
        values, used, broken = {}, 0.0, []
        counted = without_padding(reference, feeds), without_padding(candidate, feeds)
        for bound in self.bounds:
            first, second = (reference, candidate) if bound.metric == _OWN else counted
            value = self._value(bound.metric, first, second)
            values[bound.metric] = value
            used = max(used, bound.used(value, self._value(bound.metric, first, first)))
            if not bound.holds(value):
                broken.append(f"{bound.metric} is {value:.6g} and must be {bound.relation} {bound.limit:g}")
        return Verdict(values, used, tuple(broken))

    def _value(self, metric: str, reference: Answers, candidate: Answers) -> float:
        if metric != _OWN:
            return metrics.METRICS[metric](reference, candidate)
        assert self.own is not None
        return _grouped(self.own, reference, candidate)

    def __str__(self) -> str:
        return ",".join(str(bound) for bound in self.bounds)


def incomparable(reference: Answers, candidate: Answers) -> str | None:
    """Why answers cannot be held against each other at all, or None."""
    for expected, given in zip(reference, candidate, strict=True):
        for name, array in expected.items():
            other = given.get(name)
            if other is None or other.dtype != array.dtype or other.shape != array.shape:
                found = "is missing" if other is None else f"is {other.dtype}{list(other.shape)}"
                return f"output {name!r} {found} where the exported model gives {array.dtype}{list(array.shape)}"
            if array.dtype.kind == "f" and not np.array_equal(np.isfinite(array), np.isfinite(other)):
                return f"output {name!r} is not finite in other places than the exported model's"
    return None


def _grouped(own: UserMetric, reference: Answers, candidate: Answers) -> float:
    """The user's metric over all runs whose outputs can be laid together; the mean by samples if there are several."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for index, answer in enumerate(reference):
        key = tuple((name, array.shape[1:], array.ndim) for name, array in answer.items())
        groups.setdefault(key, []).append(index)
    total, weight = 0.0, 0
    for indices in groups.values():
        together = _together(reference, indices)
        samples = max((len(array) for array in together.values() if array.ndim), default=1)
        try:
            value = float(own(together, _together(candidate, indices)))
        except Exception as error:
            # The user's code: whatever it raises is told as what it is.
            raise ConfigInvalid(f"metric: it raised {type(error).__name__}: {error}") from error
        total, weight = total + value * samples, weight + samples
    return total / weight


def _together(answers: Answers, indices: Sequence[int]) -> dict[str, Array]:
    return {
        name: np.concatenate([np.atleast_1d(answers[index][name]) for index in indices]) for name in answers[indices[0]]
    }


def parse(text: str, own: UserMetric | None = None) -> Budget:
    """Parses a budget.

    Args:
        text: as ``cosine>=0.99,cosine-worst>=0.98``.
        own: the user's metric, which ``metric`` then names.

    Raises:
        ConfigInvalid: says what is wrong and what is allowed.
    """
    bounds = tuple(_parse_bound(part, text, own=own) for part in text.split(","))
    names = [bound.metric for bound in bounds]
    if len(set(names)) < len(names):
        raise ConfigInvalid(f"accuracy_budget: {text!r} bounds one metric twice; write each once")
    if own is not None and _OWN not in names:
        raise ConfigInvalid(f"accuracy_budget: {text!r} says nothing of your metric; add a bound as metric>=0.98")
    return Budget(bounds, own)


def _parse_bound(part: str, text: str, *, own: UserMetric | None) -> Bound:
    match = _BOUND.fullmatch(part)
    if match is None:
        raise ConfigInvalid(f"accuracy_budget: {part.strip()!r} in {text!r} is no bound; write as top1>=0.998")
    name, relation = match["metric"], match["relation"]
    allowed = {*metrics.METRICS, *((_OWN,) if own else ())}
    if name not in allowed:
        hint = "; say with metric (--metric) what it is" if name == _OWN else ""
        raise ConfigInvalid(f"accuracy_budget: {name!r} is no metric; there are {', '.join(sorted(allowed))}{hint}")
    better = metrics.HIGHER_IS_BETTER if relation == "<=" else metrics.LOWER_IS_BETTER
    if name in better:
        raise ConfigInvalid(
            f"accuracy_budget: {part.strip()!r} bounds {name} from the wrong side; "
            f"write {name}{'<=' if relation == '>=' else '>='}{match['limit']}"
        )
    try:
        limit = float(match["limit"])
    except ValueError as error:
        raise ConfigInvalid(f"accuracy_budget: {match['limit']!r} in {part.strip()!r} is no number") from error
    top = 1 if name in metrics.HIGHER_IS_BETTER else math.inf
    if not math.isfinite(limit) or (name != _OWN and not 0 <= limit <= top):
        raise ConfigInvalid(f"accuracy_budget: {part.strip()!r} asks for {limit:g}; allowed is 0 to {top:g}")
    return Bound(name, relation, limit)


def load_metric(name: str) -> UserMetric:
    """Imports ``package.module:function``; raises ConfigInvalid."""
    module, separator, function = name.partition(":")
    if not module or not separator or not function:
        raise ConfigInvalid(f"metric: {name!r} names no function; write package.module:function")
    try:
        found = importlib.import_module(module)
        for part in function.split("."):
            found = getattr(found, part)
    except Exception as error:
        # Importing runs foreign code, which may raise anything.
        raise ConfigInvalid(f"metric: {name!r} cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise ConfigInvalid(f"metric: {name!r} is a {type(found).__name__}; a function of two dictionaries is needed")
    return found


_CLASSES = ("softmax", "logsoftmax", "sigmoid", "argmax")
_CLASS_NAMES = ("logit", "prob", "class", "score", "label", "pred")


def default_budget(model: onnx.ModelProto, reference: Answers) -> Budget:
    """A budget that follows from the outputs' kinds.

    - classes (two axes, and the last operator is Softmax, Sigmoid or ArgMax, or the name says so; or integers):
      ``top1>=0.99,cosine>=0.98``;
    - dense (four and more axes): ``overlap>=0.98,cosine>=0.99``;
    - anything else is taken as an embedding: ``cosine>=0.99,cosine-worst>=0.98``.

    Several outputs need what each of them needs.
    """
    makers = {output: node.op_type.lower() for node in model.graph.node for output in node.output}
    needed: dict[str, float] = {}
    for name, array in reference[0].items():
        for metric, limit in _needs(name, array, maker=makers.get(name, "")).items():
            needed[metric] = max(limit, needed.get(metric, 0.0))
    return Budget(tuple(Bound(metric, ">=", limit) for metric, limit in needed.items()))


def _needs(name: str, array: Array, *, maker: str) -> dict[str, float]:
    if array.dtype.kind != "f":
        return {"top1": 0.99}
    if array.ndim >= 4:
        return {"overlap": 0.98, "cosine": 0.99}
    named = any(word in name.lower() for word in _CLASS_NAMES)
    if array.ndim == 2 and array.shape[1] > 1 and (maker in _CLASSES or named):
        return {"top1": 0.99, "cosine": 0.98}
    return {"cosine": 0.99, "cosine-worst": 0.98}
