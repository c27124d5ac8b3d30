"""What the user asks of an optimization, checked as far as it can be without the model."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from openclaw.errors import ConfigInvalid
from openclaw.optimizer.accuracy import budget as budgets
from openclaw.optimizer.accuracy.budget import Budget, UserMetric

Array = npt.NDArray[np.generic]
Calibration = str | Path | Mapping[str, Array]

PRECISIONS = ("auto", "fp32", "int8", "int4", "bf16")
MEMORY = ("auto", "least", "default")
MAX_BATCH_SIZE = 16
"""Rows that memory is measured with by default, where a model takes any number of them."""
SEED = 0
TIME_LIMIT = 110.0
"""Seconds that an optimization may take by default."""


@dataclass(frozen=True)
class Options:
    """See ``optimize``, whose arguments these are."""

    precision: str = "auto"
    calibration: Path | Mapping[str, Array] | None = None
    budget: Budget | None = None
    shapes: Mapping[str, tuple[int, ...]] | None = None
    fix_shapes: bool = False
    target_latency: float | None = None
    only: tuple[str, ...] = ()
    engines: tuple[str, ...] = ()
    time_limit: float = TIME_LIMIT
    memory: str = "auto"
    max_batch_size: int = MAX_BATCH_SIZE
    seed: int = SEED

    @property
    def asked(self) -> bool:
        """Whether a lower precision may be judged on random inputs: the user asked for it, or stated a budget."""
        return self.precision not in ("auto", "fp32") or self.budget is not None

    def identity(self) -> dict[str, object] | None:
        """What of the options decides the result, as JSON; None if it cannot be told (a metric without source code).

        Raises:
            ConfigInvalid: there is no calibration data where it should be.
        """
        metric = None
        if self.budget is not None and self.budget.own is not None:
            metric = _code_of(self.budget.own)
            if metric is None:
                return None
        return {
            "precision": self.precision,
            "calibration": None if self.calibration is None else digest_of(self.calibration),
            "budget": None if self.budget is None else str(self.budget),
            "metric": metric,
            "shapes": {name: list(shape) for name, shape in (self.shapes or {}).items()},
            "fix_shapes": self.fix_shapes,
            "target_latency": self.target_latency,
            "only": sorted(self.only),
            "engines": sorted(self.engines),
            "time_limit": str(self.time_limit),
            "memory": self.memory,
            "max_batch_size": self.max_batch_size,
            "seed": self.seed,
        }


def checked(
    *,
    precision: str = "auto",
    calibration: Calibration | None = None,
    accuracy_budget: str | None = None,
    metric: str | UserMetric | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    fix_shapes: bool = False,
    target_latency: float | None = None,
    only: Sequence[str] = (),
    engines: Sequence[str] = (),
    time_limit: float = TIME_LIMIT,
    memory: str = "auto",
    max_batch_size: int = MAX_BATCH_SIZE,
) -> Options:
    """The options of ``optimize``'s arguments; raises ConfigInvalid for what cannot be."""
    for name, word, allowed in (("precision", precision, PRECISIONS), ("memory", memory, MEMORY)):
        if word not in allowed:
            raise ConfigInvalid(f"{name}: it is {word!r}; allowed: {', '.join(allowed)}")
    if max_batch_size < 1:
        raise ConfigInvalid(f"max_batch_size: it is {max_batch_size}; allowed is 1 and more")
    if fix_shapes and not shapes:
        raise ConfigInvalid("fix_shapes: say with shapes which sizes the inputs are to have")
    if target_latency is not None and not target_latency > 0:
        raise ConfigInvalid(f"target_latency: it is {target_latency} s and must be above 0")
    if not time_limit > 0:
        raise ConfigInvalid(f"time_limit: it is {time_limit} s and must be above 0")
    own = budgets.load_metric(metric) if isinstance(metric, str) else metric
    if own is not None and accuracy_budget is None:
        raise ConfigInvalid("metric: say with the accuracy budget what it must reach, as metric>=0.98")
    return Options(
        precision=precision,
        calibration=Path(calibration) if isinstance(calibration, str) else calibration,
        budget=None if accuracy_budget is None else budgets.parse(accuracy_budget, own),
        shapes={name: tuple(shape) for name, shape in (shapes or {}).items()},
        fix_shapes=fix_shapes,
        target_latency=target_latency,
        only=tuple(only),
        engines=tuple(engines),
        time_limit=time_limit,
        memory=memory,
        max_batch_size=max_batch_size,
    )


def digest_of(data: Path | Mapping[str, Array]) -> str:
    """SHA-256 of calibration data: of arrays, a file, or a folder's files with their names."""
    return _digest_of_files(data) if isinstance(data, Path) else _digest_of_arrays(data)


def _digest_of_arrays(arrays: Mapping[str, Array]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        # Of objects the bytes would be addresses.
        content = repr(array.tolist()).encode() if array.dtype.hasobject else np.ascontiguousarray(array).tobytes()
        digest.update(f"{name}\0{array.dtype.str}{array.shape}\0".encode() + content)
    return digest.hexdigest()


def _digest_of_files(path: Path) -> str:
    files = sorted(file for file in path.iterdir() if file.suffix in (".npz", ".npy")) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        try:
            with file.open("rb") as stream:
                digest.update(f"{file.name}\0".encode() + hashlib.file_digest(stream, "sha256").digest())
        except OSError as error:
            raise ConfigInvalid(f"calibration: {file} cannot be read: {error.strerror or error}") from error
    return digest.hexdigest()


def _code_of(function: UserMetric) -> str | None:
    """Tells one metric from another by its source code, as far as its own goes."""
    try:
        code = inspect.getsource(function)
    except (OSError, TypeError):
        return None
    return hashlib.sha256(code.encode()).hexdigest()
