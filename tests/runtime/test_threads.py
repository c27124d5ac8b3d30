"""What an inference gets of a process's cores."""

from hypothesis import given
from hypothesis import strategies as st

from openclaw.config import parse
from openclaw.devices.cpu import read_grant
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
