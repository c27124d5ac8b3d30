"""The first inferences: they prove that the model answers, and pay its one-time costs before users do."""

from __future__ import annotations

import logging
import time

from openclaw.errors import ModelWarmupFailed, RequestError
from openclaw.execute.session import Array, Model

log = logging.getLogger(__name__)


_PROBES = 5
_QUICK = 0.001  # seconds


def warm_up(model: Model, requests: int) -> float:
    """Runs ``requests`` inferences on zeros of the model's signature, free dimensions as 1.

    Returns:
        Seconds of the quickest; a quick model is run a few times more, to be sure. Infinite without any.

    Raises:
        ModelWarmupFailed: the model cannot take such an input, or fails on it.
    """
    inputs = {spec.name: spec.blank() for spec in model.signature.inputs}
    start = time.perf_counter()
    quickest = float("inf")
    for _ in range(requests):
        try:
            quickest = min(quickest, _timed(model, inputs))
        except RequestError as error:
            given = ", ".join(f"{name}{list(array.shape)}" for name, array in inputs.items())
            raise ModelWarmupFailed(
                f"the warm-up inference with zeros as {given} failed: {error}. If the model is right and only "
                "takes other shapes or values, set model.warmup.requests to 0: it is then ready once loaded"
            ) from error
    if requests:
        took = (time.perf_counter() - start) / requests
        log.info("warmed up with %d inference(s), %.1f ms each", requests, took * 1e3)
    if quickest < _QUICK:
        quickest = min(quickest, *(_timed(model, inputs) for _ in range(_PROBES)))
    return quickest


def _timed(model: Model, inputs: dict[str, Array]) -> float:
    start = time.perf_counter()
    model.run(inputs)
    return time.perf_counter() - start
