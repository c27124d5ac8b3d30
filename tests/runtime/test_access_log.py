"""The access log: what is logged, how a line is written, and what a reader that stands still costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw.errors import ConfigInvalid
from openclaw.serving import accesslog
from openclaw.serving.accesslog import Access, AccessLog, Sampling, line, sampling

NOON = datetime(2026, 3, 4, 12, 0, 0, 5000, tzinfo=UTC)


def access(path: str = "/v2/models/digits/infer", code: int = 200, request_id: str = "") -> Access:
    return Access("rest", "POST", path, "digits", "1", code, 0.0012345, 512, 128, request_id, "ab" * 16)


def test_a_line_has_every_field_and_its_time_in_utc() -> None:
    assert json.loads(line(access(request_id="r-1"), NOON)) == {
        "time": "2026-03-04T12:00:00.005Z",
        "protocol": "rest",
        "method": "POST",
        "path": "/v2/models/digits/infer",
        "model": "digits",
        "version": "1",
        "code": 200,
        "duration_ms": 1.234,
        "bytes_in": 512,
        "bytes_out": 128,
        "request_id": "r-1",
        "trace_id": "ab" * 16,
    }


@given(st.text(max_size=200), st.text(max_size=200))
def test_no_text_of_a_client_leaves_its_line(path: str, request_id: str) -> None:
    text = line(access(path, request_id=request_id), NOON)
    assert text.endswith(b"\n")
    assert all(0x20 <= byte <= 0x7E for byte in text[:-1])
    assert json.loads(text)["path"] == path
    assert json.loads(text)["request_id"] == request_id


def test_a_long_path_is_cut() -> None:
    assert len(line(access("x" * 100_000), NOON)) < 2 * accesslog.MAX_TEXT


@pytest.mark.parametrize(
    ("value", "expected"),
    [("off", None), ("0", None), ("all", Sampling(1.0)), ("errors", Sampling(1.0, 400)), ("0.25", Sampling(0.25))],
)
def test_the_environment_says_what_is_logged(value: str, expected: Sampling | None) -> None:
    assert sampling({"OPENCLAW_ACCESS_LOG": value}) == expected
    assert sampling({}) is None


@pytest.mark.parametrize("value", ["", "on", "1.5", "-0.1", "nan", "inf"])
def test_another_value_is_refused_with_what_is_allowed(value: str) -> None:
    with pytest.raises(ConfigInvalid, match=r"OPENCLAW_ACCESS_LOG is .*; allowed: off, all, errors, or a fraction"):
        sampling({"OPENCLAW_ACCESS_LOG": value})


def test_sampling_takes_its_share() -> None:
    assert [Sampling(1.0, 400).wants(code) for code in (200, 399, 400, 503)] == [False, False, True, True]
    taken = sum(Sampling(0.25).wants(200) for _ in range(20_000))
    # Eight standard deviations of the binomial distribution.
    assert abs(taken - 5000) < 8 * (20_000 * 0.25 * 0.75) ** 0.5


def test_lines_are_on_standard_output_when_the_log_is_closed() -> None:
    program = (
        "from openclaw.serving.accesslog import *\n"
        "log = AccessLog(Sampling(1.0))\n"
        "for i in range(1000): log.record(Access('rest', 'POST', f'/{i}', 'm', '1', 200, 0.1, 1, 1))\n"
        "assert log.close()"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, env=environment, check=True).stdout
    assert [json.loads(text)["path"] for text in output.splitlines()] == [f"/{i}" for i in range(1000)]


def test_lines_are_written_while_the_log_is_open() -> None:
    written = threading.Event()
    log = AccessLog(Sampling(1.0), lambda _: written.set())
    log.record(access())
    assert written.wait(10)
    assert log.close()


class Reader:
    """Reads nothing until it is told to."""

    def __init__(self) -> None:
        self.asked, self.reads, self.changed = threading.Event(), threading.Event(), threading.Condition()
        self.data = bytearray()

    def write(self, data: bytes) -> None:
        self.asked.set()
        assert self.reads.wait(30)
        with self.changed:
            self.data.extend(data)
            self.changed.notify()

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(text) for text in self.data.splitlines()]


def test_a_reader_that_stands_still_costs_lines_and_is_told_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accesslog, "MAX_WAITING_BYTES", 4000)
    monkeypatch.setattr(accesslog, "FLUSH_SECONDS", 0.0)
    reader = Reader()
    log = AccessLog(Sampling(1.0), reader.write)
    log.record(access("/first"))
    assert reader.asked.wait(10)
    for _ in range(100):
        log.record(access("/later"))
    reader.reads.set()
    with reader.changed:
        assert reader.changed.wait_for(lambda: b"/later" in reader.data, 10)
    log.record(access("/last"))
    assert log.close()
    lines = reader.lines()
    kept = sum(entry.get("path") == "/later" for entry in lines)
    assert 0 < kept < 100
    assert (lines[0]["path"], lines[-1]["path"]) == ("/first", "/last")
    assert lines[-2] == {"dropped_lines": 100 - kept}


def test_closing_does_not_wait_for_a_reader_that_stands_still() -> None:
    reader = Reader()
    log = AccessLog(Sampling(1.0), reader.write)
    log.record(access())
    assert log.close(timeout=0.01) is False
    reader.reads.set()
    assert log.close()
    assert len(reader.lines()) == 1


def test_a_reader_that_left_stops_nothing() -> None:
    def write(_: bytes) -> None:
        raise BrokenPipeError

    log = AccessLog(Sampling(1.0), write)
    for _ in range(10):
        log.record(access())
    assert log.close()
    assert not log.wants(500)
