"""The serving benchmark's own arithmetic and its load: figures that nobody checks are worth nothing."""

from __future__ import annotations

import asyncio
import json
import math
import random
import socket
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from benchmarks.serving import (
    coldstart,
    figures,
    load,
    models,
    pauses,
    picture,
    report,
    rolling,
    server,
    soak,
    subjects,
    wire,
)
from benchmarks.serving.environments import Environment
from benchmarks.serving.openloop import OpenLoop
from benchmarks.serving.samples import LOOP, Sample, Samples
from benchmarks.serving.verdicts import peaks, verdicts
from benchmarks.summary import summary
from benchmarks.targets import Verdict
from hypothesis import given
from hypothesis import strategies as st

REQUEST = wire.Post("/v2/models/mlp/infer", {}, b"{}").encoded()


def sample(subject: str, rate: float, **more: object) -> Sample:
    """A closed loop of the tiny model with 16 connections, unless said otherwise."""
    kind = {"openclaw": "ours", "bare protocol": "bare", LOOP: "bare"}.get(subject, "peer")
    fields: dict[str, object] = {
        "round": 0, "kind": kind, "model": "mlp", "encoding": "json", "load": "closed", "level": 16.0, "p50": 0.001,
        "p99": 0.002, **more,
    }  # fmt: skip
    return Sample(subject=subject, rate=rate, **fields)  # type: ignore[arg-type]  # the fields above


def held(samples: list[Sample], beginning: str, *, half: float | None = None) -> bool | None:
    found = [each for each in verdicts(Samples(samples), half=half) if each.target.startswith(beginning)]
    assert found, f"no target begins with {beginning!r}"
    return found[0].holds


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1))
def test_a_percentile_is_the_smallest_value_that_so_many_are_not_above(values: list[float], share: float) -> None:
    found = figures.percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9
    assert sum(value < found for value in values) < share * len(values)


def test_the_percentile_of_nothing_is_not_a_number() -> None:
    assert math.isnan(figures.percentile([], 0.5))


@given(st.floats(1, 1000), st.floats(0.1, 5), st.integers())
def test_poisson_arrivals_ascend_within_the_time(rate: float, seconds: float, seed: int) -> None:
    due = figures.poisson(rate, seconds, random=random.Random(seed))
    assert due == sorted(due)
    assert all(0 <= at < seconds for at in due)


def test_poisson_arrivals_come_at_their_rate() -> None:
    due = figures.poisson(100, 200, random=random.Random(7))
    # The count's standard deviation is the root of its mean, 141.
    assert abs(len(due) - 20_000) < 5 * 141


def test_goodput_counts_only_what_was_in_time() -> None:
    assert figures.goodput([0.1, 0.5, 0.51], objective=0.5, seconds=2) == 1.0


def test_what_wrk_counts_as_another_status_is_no_throughput() -> None:
    told = '{"requests": 100, "microseconds": 2000000, "failed": 1, "refused": 20, "p50": 1500, "p99": 4000}'
    done = load.parsed(f"Running 2s test\n  noise\n{told}\n")
    assert done == load.Closed(rate=40.0, p50=0.0015, p99=0.004, refused=20, failed=1)


def test_without_its_line_wrk_has_failed_with_what_it_said() -> None:
    with pytest.raises(load.LoadError, match="unable to connect"):
        load.parsed("", "unable to connect to 127.0.0.1:1")


def test_a_json_request_has_every_tensor_with_its_data() -> None:
    arrays: models.Arrays = {"a": np.array([[1.5, 2]], np.float32), "b": np.array([[3]], np.int64)}
    request = wire.post("m", arrays, binary=False)
    assert request.path == "/v2/models/m/infer"
    assert json.loads(request.body)["inputs"] == [
        {"name": "a", "shape": [1, 2], "datatype": "FP32", "data": [1.5, 2.0]},
        {"name": "b", "shape": [1, 1], "datatype": "INT64", "data": [3]},
    ]


def test_a_binary_request_has_the_bytes_of_its_tensors_after_the_header() -> None:
    arrays: models.Arrays = {"a": np.array([[1.5, 2]], np.float32), "b": np.array([[3]], np.int64)}
    request = wire.post("m", arrays, binary=True)
    head = int(request.headers[wire.HEADER_LENGTH])
    sizes = [each["parameters"]["binary_data_size"] for each in json.loads(request.body[:head])["inputs"]]
    assert sizes == [8, 8]
    assert request.body[head:] == arrays["a"].tobytes() + arrays["b"].tobytes()


def test_an_answer_is_read_in_both_encodings() -> None:
    array = np.array([[1.0, 2.0]], np.float32)
    tensor = {"name": "y", "shape": [1, 2], "datatype": "FP32"}
    text = json.dumps({"outputs": [{**tensor, "data": [1.0, 2.0]}]}).encode()
    head = json.dumps({"outputs": [{**tensor, "parameters": {"binary_data_size": 8}}]}).encode()
    for got in (wire.outputs(text, None), wire.outputs(head + array.tobytes(), len(head))):
        assert server.differences(got, {"y": array}) == ""


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"z": np.zeros(2, np.float32)}, "outputs"),
        ({"y": np.zeros(3, np.float32)}, "shape"),
        ({"y": np.array([1.0, 2.1], np.float32)}, "off by up to 0.1"),
        ({"y": np.array([1.0, np.nan], np.float32)}, "off by up to nan"),
    ],
)
def test_a_wrong_answer_is_told_from_a_right_one(answer: models.Arrays, said: str) -> None:
    assert said in server.differences(answer, {"y": np.array([1.0, 2.0], np.float32)})


def test_the_peer_with_the_highest_median_is_the_best() -> None:
    steady = [sample("steady", 100, round=number) for number in range(3)]
    lucky = [sample("lucky", rate, round=number) for number, rate in enumerate((500, 90, 80))]
    assert Samples([*lucky, *steady]).best("rate") == "steady"


def test_ratios_are_of_the_same_round() -> None:
    rounds = [(100, 10), (50, 5), (300, 20)]
    samples = [sample("openclaw", ours, round=number) for number, (ours, _) in enumerate(rounds)]
    samples += [sample("peer", theirs, round=number) for number, (_, theirs) in enumerate(rounds)]
    assert Samples(samples).ratio("rate", "openclaw", "peer") == figures.Spread(10.0, 10.0, 15.0)


@pytest.mark.parametrize(("ours", "holds"), [(800, True), (799, False)])
def test_throughput_is_held_against_the_best_peer(ours: float, holds: bool) -> None:
    samples = [sample("openclaw", ours), sample("quick", 100), sample("slow", 10)]
    assert held(samples, "tiny MLP, JSON, 16 connections: 8x") is holds


@pytest.mark.parametrize(("ours", "holds"), [(0.7, True), (0.69, False)])
def test_throughput_is_held_against_the_bare_protocol(ours: float, holds: bool) -> None:
    samples = [sample("openclaw", ours, encoding="binary"), sample("bare protocol", 1, encoding="binary")]
    assert held(samples, "tiny MLP, binary, 16 connections: 0.7x") is holds


@pytest.mark.parametrize(("ours", "holds"), [(0.009, True), (0.011, False)])
def test_latency_is_compared_at_half_of_the_best_peers_rate(ours: float, holds: bool) -> None:
    samples = [
        sample("peer", 100),
        sample("peer", 50, load="open", level=50.0, p99=0.030),
        sample("peer", 20, load="open", level=20.0, p99=0.001),
        sample("openclaw", 50, load="open", level=50.0, p99=ours),
    ]
    assert held(samples, "tiny MLP, JSON: p99", half=50.0) is holds


@pytest.mark.parametrize(("ours", "holds"), [(97, True), (96, False)])
def test_images_are_held_against_the_engine_alone(ours: float, holds: bool) -> None:
    more = {"model": "resnet50", "encoding": "binary"}
    assert held([sample("openclaw", ours, **more), sample(LOOP, 100, load="loop", **more)], "ResNet50") is holds


def poisson(subject: str, level: float, good: float, batch: int = 1) -> Sample:
    return sample(subject, good, model="bert", load="poisson", level=level, goodput=good, batch=batch)


@pytest.mark.parametrize(("ours", "holds"), [(16, True), (15, False)])
def test_goodput_is_held_against_peers_that_batch_when_most_is_offered(ours: float, holds: bool) -> None:
    samples = [
        poisson("peer", 10, 9, batch=16),
        poisson("peer", 20, 8, batch=16),
        poisson("single", 20, 10),
        poisson("openclaw", 10, 10),
        poisson("openclaw", 20, ours),
    ]
    assert held(samples, "BERT, 8 to 128 tokens, Poisson arrivals, 500 ms: goodput 2x") is holds


def test_goodput_is_shown_as_well_where_each_is_at_its_best() -> None:
    samples = [
        poisson("peer", 10, 8, batch=16),
        poisson("single", 10, 10),
        poisson("single", 20, 1),
        poisson("openclaw", 10, 10),
        poisson("openclaw", 20, 12),
    ]
    levels = {(each.subject, each.level) for each in peaks(Samples(samples)).all}
    assert levels == {("peer", 10), ("single", 10), ("openclaw", 20)}
    shown = [verdict for verdict in verdicts(Samples(samples), half=None) if verdict.holds is None]
    assert "1.20x (1.20 to 1.20) of single" in [verdict.measured for verdict in shown]


def test_goodput_counts_in_the_setting_that_is_the_best() -> None:
    samples = [poisson("peer", 20, 8, batch=16), poisson("openclaw", 20, 10)]
    told = Sample(**{**asdict(samples[1]), "subject": "openclaw (told 500 ms)", "goodput": 16.0})
    assert held([*samples, told], "BERT, 8 to 128 tokens, Poisson arrivals, 500 ms: goodput 2x") is True


def test_openclaw_is_told_of_the_objective_in_one_of_its_settings() -> None:
    variants = subjects.SUBJECTS[0].variants_for(models.BERT)
    commands = [" ".join(subjects.Served(subjects.SUBJECTS[0], models.BERT, each).command(1, 2)) for each in variants]
    assert ["--latency-target 0.5" in each for each in commands] == [False, True]


def test_the_summary_has_every_target_and_names_what_was_not_measured(tmp_path: Path) -> None:
    kept = {"machine": {"commit": "abc"}, "verdicts": [asdict(Verdict("quick", "2x | of it", holds=False))]}
    (tmp_path / "a.json").write_text(json.dumps(kept))
    (tmp_path / "old.json").write_text("{}")
    text = summary([tmp_path / "a.json", tmp_path / "old.json", tmp_path / "none.json"])
    assert "| quick | 2x / of it | **no** | abc |" in text
    assert "| what old.json is to keep | not measured |" in text
    assert "| what none.json is to keep | not measured |" in text


def test_what_was_not_measured_is_not_said_to_hold() -> None:
    for verdict in verdicts(Samples([]), half=None):
        assert (verdict.holds, verdict.measured) == (None, "not measured")


def test_the_table_has_every_subject_and_what_was_left_out() -> None:
    samples = Samples([sample("openclaw", 900, failed=3), sample("peer", 100), sample("bare protocol", 1000)])
    text = report.table(samples, verdicts(samples, half=None), rounds=1, left_out=["triton: no wheel\nfor this"])
    assert "| **openclaw** | 900; 2.00; 3 not answered | 9.00 | 0.90 |" in text
    assert "| peer | 100; 2.00 | 1.00 | 0.10 |" in text
    assert "Left out: triton: no wheel\n" in text


def test_the_table_marks_what_was_measured_in_one_round_alone() -> None:
    often = [sample("openclaw", 900, round=number) for number in range(2)]
    once = sample("openclaw", 500, level=64.0)
    text = report.table(Samples([*often, once]), [], rounds=2, left_out=[])
    assert "| **openclaw** | 900; 2.00 | 500; 2.00\\* |" in text


def test_the_picture_leaves_out_where_the_client_was_late() -> None:
    points = [sample("openclaw", rate, load="open", level=rate, p99=0.002) for rate in (100.0, 1000.0)]
    late = sample("openclaw", 5000, load="open", level=5000.0, p99=0.002, lag=0.001)
    drawn = picture.latency_against_load(Samples(points))
    assert picture.latency_against_load(Samples([*points, late])) == drawn
    assert picture.latency_against_load(Samples([*points, sample("a<b", 10, load="open", level=10.0)])) != drawn


@given(st.lists(st.tuples(st.sampled_from(["openclaw", "a<b"]), st.floats(1, 1e5), st.floats(1e-5, 10)), max_size=8))
def test_the_picture_is_well_formed_whatever_was_measured(points: list[tuple[str, float, float]]) -> None:
    samples = Samples(sample(name, rate, load="open", level=rate, p99=p99) for name, rate, p99 in points)
    root = ElementTree.fromstring(picture.latency_against_load(samples))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    shown = {"".join(each.itertext()) for each in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {name for name, _, _ in points} <= shown


def resident(sizes: list[int]) -> list[soak.Resident]:
    return [soak.Resident(at=5.0 * number, size=size) for number, size in enumerate(sizes)]


def test_memory_that_grows_before_it_settled_is_flat() -> None:
    assert soak.growth(resident([100 * min(number, 12) for number in range(120)])) == 0.0


def test_memory_that_grows_on_is_not_flat() -> None:
    assert soak.growth(resident([1000 + number for number in range(120)])) > 0.05


def test_a_short_run_is_compared_from_its_middle_on() -> None:
    assert soak.growth(resident([100, 100, 100, 200])) == 1.0


def paused(mode: str, *, p99: float, total: float) -> pauses.Paused:
    return pauses.Paused(mode, 1, total=total, p99=p99, longest=p99, reported=total, latency=0.0, answered=1)


def test_pauses_are_held_against_a_quarter_of_the_default() -> None:
    runs = [paused("default", p99=0.004, total=0.4), paused("managed", p99=0.002, total=0.1)]
    assert [each.holds for each in pauses.verdicts(runs)] == [False, True]


async def test_an_answer_is_read_to_its_end_and_its_closing_seen() -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 503 Busy\r\nconnection: Close\r\n\r\n")
    assert await rolling.answered(reader) == (200, False)
    assert await rolling.answered(reader) == (503, True)


async def test_an_answer_cut_short_is_no_answer() -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{}")
    reader.feed_eof()
    with pytest.raises(EOFError):
        await rolling.answered(reader)


def test_one_failure_or_one_bad_ending_is_enough() -> None:
    assert rolling.Rolled(answered=5, endings=[(5.1, 0)]).holds
    assert not rolling.Rolled(answered=5, endings=[(5.1, 0), (30.0, -9)]).holds
    failed = rolling.Rolled(answered=5, failures=Counter({"status 503": 2}), endings=[(5.1, 0)])
    assert (failed.failed, failed.holds) == (2, False)
    assert json.loads(json.dumps(failed.document()))["failures"] == {"status 503": 2}


def test_what_the_server_imports_is_read_from_the_interpreters_own_account() -> None:
    log = """import time: self [us] | cumulative | imported package
import time:       120 |        300 |   openclaw.errors
INFO listening | on 127.0.0.1
import time:        50 |         60 | orjson
import time:       100 |        900 | openclaw.cli
import time:       120 |        300 |   openclaw.errors
"""
    assert coldstart.imported_modules(log) == ["openclaw.errors", "openclaw.cli"]


def test_other_requirements_are_another_environment() -> None:
    first, second = (Environment("nobody", (f"package=={number}",)) for number in (1, 2))
    assert first.folder != second.folder
    assert first.folder == Environment("nobody", ("package==1",)).folder
    assert not first.installed


@pytest.mark.parametrize("subject", subjects.SUBJECTS, ids=lambda subject: subject.name)
def test_pins_of_a_peer_hold_its_version_and_leave_the_engine_to_all(subject: subjects.Subject) -> None:
    if subject.environment is None:
        assert subject.kind != "peer"
        return
    pins = subject.environment.lock.read_text().splitlines()
    assert set(subject.environment.requirements) <= set(pins)
    assert not [pin for pin in pins if pin.startswith("onnxruntime==")]


def test_padding_hides_what_it_adds() -> None:
    sentence = models.BERT.sample(np.random.default_rng(0))
    padded = models.padded(sentence)
    length = sentence["input_ids"].shape[1]
    assert {array.shape for array in padded.values()} == {(1, 128)}
    assert padded["attention_mask"].sum() == length
    assert (padded["input_ids"][:, :length] == sentence["input_ids"]).all()


def test_free_ports_lie_in_a_row() -> None:
    ports = server.free_ports(3)
    assert ports == list(range(ports[0], ports[0] + 3))


@contextmanager
def answering(status: Callable[[int], int | None]) -> Iterator[int]:
    """A server whose n-th answer has this status; None: it closes the connection instead."""
    seen = iter(range(1_000_000))
    guard = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            with guard:
                number = next(seen)
            if (code := status(number)) is None:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.send_response(code)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: object) -> None:
            """Nothing on the terminal of the tests."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield http.server_port
        finally:
            http.shutdown()
            thread.join()


def test_a_stall_is_charged_to_all_who_came_meanwhile() -> None:
    def stall(number: int) -> int:
        if number == 0:
            threading.Event().wait(0.2)
        return 200

    with answering(stall) as port:
        done = OpenLoop(port, [0.0, 0.01], requests=[REQUEST], connections=1).run()
    first, second = done.latencies
    # The second can only be sent when the first is answered, but was due 10 ms after it.
    assert second >= first - 0.01
    assert done.failed == done.refused == 0


def test_every_request_is_counted_once() -> None:
    statuses = [200, 429, 503, 500, 400, None]
    with answering(lambda number: statuses[number % len(statuses)]) as port:
        done = OpenLoop(port, figures.evenly(200, 0.3), requests=[REQUEST], connections=4).run()
    assert (len(done.latencies), done.refused, done.failed) == (10, 20, 30)


def test_what_is_not_answered_in_time_has_failed() -> None:
    release = threading.Event()

    def late(number: int) -> int:
        release.wait(10)
        return 200

    with answering(late) as port:
        done = OpenLoop(port, [0.0, 0.0], requests=[REQUEST], connections=2, patience=0.1).run()
        release.set()
    assert (done.latencies, done.failed) == ([], 2)


def test_a_large_request_goes_out_whole() -> None:
    large = wire.Post("/", {}, bytes(8_000_000)).encoded()
    with answering(lambda number: 200) as port:
        done = OpenLoop(port, [0.0, 0.0, 0.0], requests=[large], connections=2).run()
    assert len(done.latencies) == 3


def test_a_closed_connection_is_opened_anew() -> None:
    with answering(lambda number: None if number == 0 else 200) as port:
        done = OpenLoop(port, figures.evenly(50, 0.2), requests=[REQUEST], connections=1).run()
    assert (len(done.latencies), done.failed) == (9, 1)


@pytest.mark.parametrize(("pausable", "at_rest"), [(True, "T"), (False, "S")])
def test_a_server_stands_still_while_others_are_measured(pausable: bool, at_rest: str, tmp_path: Path) -> None:
    script = "import time; time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", script], start_new_session=True)
    subject = server.Server(process, 0, tmp_path / "log", pausable, started=0.0, ready=0.0)
    try:
        assert until_state(process.pid, "S")
        subject.pause()
        assert until_state(process.pid, at_rest)
        with subject.awake():
            assert until_state(process.pid, "S")
        assert until_state(process.pid, at_rest)
    finally:
        assert subject.stop() != 0
    assert not Path(f"/proc/{process.pid}").exists()


def until_state(pid: int, state: str) -> bool:
    """Whether a process gets into a state (proc(5)): S sleeps, T is stopped."""
    tick, end = threading.Event(), time.monotonic() + 10
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != state:
        if time.monotonic() > end:
            return False
        tick.wait(0.01)
    return True
