"""The first inferences: they prove that the model answers, and pay its one-time costs before users do."""

from __future__ import annotations

import logging
import time

from openclaw.errors import ModelWarmupFailed, RequestError
from openclaw.execute.session import Model

log = logging.getLogger(__name__)


def warm_up(model: Model, requests: int) -> None:
    """Runs ``requests`` inferences on zeros of the model's signature, free dimensions as 1.

    Raises:
        ModelWarmupFailed: the model cannot take such an input, or fails on it.
    """
    inputs = {spec.name: spec.blank() for spec in model.signature.inputs}
    start = time.perf_counter()
    for _ in range(requests):
        try:
            model.run(inputs)
        except RequestError as error:
            given = ", ".join(f"{name}{list(array.shape)}" for name, array in inputs.items())
            raise ModelWarmupFailed(
                f"the warm-up inference with zeros as {given} failed: {error}. If the model is right and only "
                "takes other shapes or values, set model.warmup.requests to 0: it is then ready once loaded"
            ) from error
    if requests:
        took = (time.perf_counter() - start) / requests
        log.info("warmed up with %d inference(s), %.1f ms each", requests, took * 1e3)
