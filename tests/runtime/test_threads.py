"""What an inference gets of a process's cores."""

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
from hypothesis import given
from hypothesis import strategies as st

from openclaw.config import parse
from openclaw.devices.cpu import read_grant
from openclaw.execute.session import Model
from openclaw.execute.threads import cores_of, runs_of, threads_of


@given(st.integers(1, 64), st.none() | st.integers(1, 512))
def test_threads_are_those_that_were_asked_for_else_the_cores_and_runs_keep_the_cores_busy(
    workers: int, threads: int | None
) -> None:
    model = {"name": "m", "uri": "file:///m.onnx"}
    config = parse({"model": model, "server": {"workers": workers, "threads": threads}})
    assert 1 <= cores_of(config) <= max(1, read_grant().cores / workers)
    assert threads_of(config) == (threads or cores_of(config))
    assert runs_of(config) >= 1
    assert runs_of(config) == 1 or runs_of(config) * threads_of(config) <= cores_of(config)


def burned_after(run: Callable[[], object]) -> list[float]:
    """CPU seconds that this process takes in a tenth of a second after a run, of some runs."""
    taken = []
    for _ in range(5):
        run()
        began = time.process_time()
        threading.Event().wait(0.1)
        taken.append(time.process_time() - began)
    return taken


def test_a_model_takes_no_cpu_once_it_has_answered(models: Any) -> None:
    path, rows = models.slow(), {"x": np.ones((64, 512), np.float32)}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    spinning = onnxruntime.InferenceSession(path, options)  # as onnxruntime has it by default
    model = Model.from_file(path, threads=2)
    assert max(burned_after(lambda: spinning.run(None, rows))) > 0.01
    assert min(burned_after(lambda: model.run(rows))) < 0.002
