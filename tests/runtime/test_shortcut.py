"""The shortcut of small requests gives what the general way gives, or nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from openclaw.config import ModelConfig
from openclaw.execute.session import Model
from openclaw.serving.batching.layout import Layout
from openclaw.serving.batching.measuring import ModelProfile
from openclaw.serving.batching.profile import Point, Profile
from openclaw.serving.counters import SharedCounters
from openclaw.serving.exchange import Exchange, open_inference
from openclaw.serving.http.messages import Answer, Request, Soon
from openclaw.serving.inference import InferRequest, RequestedOutput, Tensor
from openclaw.serving.loading import Loaded
from openclaw.serving.protocol import encode_request
from openclaw.serving.served import Served
from openclaw.serving.shortcut import MAX_BYTES, MAX_SHAPES, MOST
from openclaw.serving.telemetry import Telemetry

QUICK = ModelProfile(None, {0: Profile((Point(1, 1e-6, 5),))})
TOGETHER = ModelProfile(
    Layout(("x",), fixed=True), {0: Profile(tuple(Point(rows, 1e-6, 5) for rows in (1, 2, 4, 8, 16)))}
)
DIALECT = open_inference(None)


class Site:
    """One model, asked without a socket."""

    def __init__(self, path: Path, executor: ThreadPoolExecutor, *, profile: ModelProfile = QUICK) -> None:
        self.telemetry = Telemetry(SharedCounters())
        self.exchange = Exchange(self.telemetry, max_bytes=2**20)
        config = ModelConfig(name="m", uri=path.as_uri())
        loaded = Loaded(config, Model.from_file(path, threads=1), seconds=0.0, profile=profile)
        metrics = self.telemetry.metrics.model("m")
        self.served = Served(loaded, "1", metrics=metrics, executor=executor, runs=1, hop=10.0)

    def shortly(self, body: bytes, *headers: tuple[bytes, bytes]) -> Answer | None:
        answer = self.exchange.answer_shortly(self._request(body, headers), self.served, DIALECT)
        assert not isinstance(answer, Soon)
        return answer

    def soon(self, body: bytes, *headers: tuple[bytes, bytes]) -> asyncio.Future[Answer]:
        """The answer of a model whose batches pay."""
        answer = self.exchange.answer_shortly(self._request(body, headers), self.served, DIALECT)
        assert answer is not None
        future = asyncio.get_running_loop().create_future()
        if isinstance(answer, Soon):
            answer.deliver = lambda given: settle(future, given)
        else:
            future.set_result(answer)
        return future

    async def generally(self, body: bytes, *headers: tuple[bytes, bytes]) -> Answer:
        answer = self.exchange.answer(self._request(body, headers), self.served, DIALECT)
        return answer if isinstance(answer, Answer) else await answer

    @staticmethod
    def _request(body: bytes, headers: tuple[tuple[bytes, bytes], ...]) -> Request:
        request = Request(0.0)
        request.method, request.body, request.headers = "POST", body, list(headers)
        return request


def settle(future: asyncio.Future[Answer], given: Answer | Awaitable[Answer]) -> None:
    if isinstance(given, Answer):
        future.set_result(given)
    else:
        asyncio.ensure_future(given).add_done_callback(lambda task: future.set_result(task.result()))


@pytest.fixture
async def site(models: Any) -> AsyncIterator[Callable[..., Site]]:
    with ThreadPoolExecutor(1) as executor:
        yield lambda path, **options: Site(path, executor, **options)


def document(data: list[Any], **other: Any) -> bytes:
    tensor = {"name": "x", "datatype": "FP32", "shape": [len(data) // 2, 2], "data": data} | other
    return json.dumps({"inputs": [tensor]}).encode()


def in_binary(array: np.ndarray[Any, Any], **options: Any) -> tuple[bytes, tuple[bytes, bytes]]:
    encoded = encode_request(InferRequest((Tensor("x", "FP32", array, binary=True),), binary_output=True, **options))
    return encoded.body, (b"inference-header-content-length", b"%d" % (encoded.header_length or 0))


def whole(answer: Answer | None) -> tuple[int, bytes, Any, bytes] | None:
    return answer and (answer.status, answer.content_type, answer.headers, b"".join(answer.parts))


async def test_it_takes_what_a_quick_model_was_asked_once_the_general_way(
    site: Callable[..., Site], models: Any
) -> None:
    one = site(models.identity(TensorProto.FLOAT))
    body = document([1, 2.5])
    assert one.shortly(body) is None  # whether the model is quick is not known yet
    general = await one.generally(body)
    assert whole(one.shortly(body)) == whole(general)
    assert json.loads(general.parts[0])["outputs"][0]["data"] == [1.0, 2.5]


async def test_a_model_that_is_not_quick_has_none(site: Callable[..., Site], models: Any) -> None:
    slow = ModelProfile(None, {0: Profile((Point(1, 60.0, 5),))})
    one = site(models.identity(TensorProto.FLOAT), profile=slow)
    await one.generally(document([1, 2]))
    assert one.shortly(document([1, 2])) is None


VALUES = st.integers(-(2**70), 2**70) | st.floats() | st.booleans() | st.none() | st.text(max_size=2)
SIZES = st.integers(-1, 3) | st.sampled_from([1.0, True, None, "1"])
TENSORS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["x", "x", "x", "y"]),
        "datatype": st.sampled_from(["FP32", "FP32", "INT64", "FP99"]),
        "shape": st.lists(SIZES, max_size=3) | st.just([1, 2]) | st.none(),
        "data": st.lists(VALUES, max_size=4) | st.lists(st.floats(width=32), min_size=2, max_size=4) | st.none(),
    },
    optional={"parameters": st.just({}) | st.just({"a": 1})},
)
DOCUMENTS = st.fixed_dictionaries(
    {"inputs": st.lists(TENSORS, max_size=2)},
    optional={"id": st.text(max_size=2), "parameters": st.just({"timeout": 10**9}), "outputs": st.just([])},
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bodies=st.lists(DOCUMENTS.map(lambda d: json.dumps(d).encode()) | st.binary(max_size=20), max_size=4))
def test_whatever_is_asked_in_json_it_decides_nothing_otherwise(models: Any, bodies: list[bytes]) -> None:
    async def story() -> None:
        with ThreadPoolExecutor(1) as executor:
            one = Site(models.identity(TensorProto.FLOAT), executor)
            await one.generally(document([0.0] * 4))
            for body in [document([1.0, 2.0]), *bodies, *bodies]:
                short = one.shortly(body)
                assert short is None or whole(short) == whole(await one.generally(body))

    asyncio.run(story())


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.lists(st.floats(width=32), min_size=2, max_size=8).filter(lambda data: len(data) % 2 == 0),
    length=st.sampled_from([None, b"0", b"-1", b"9" * 30, b"12", b"x"]),
    cut=st.integers(0, 3),
)
def test_whatever_is_asked_in_binary_it_decides_nothing_otherwise(
    models: Any, data: list[float], length: bytes | None, cut: int
) -> None:
    async def story() -> None:
        with ThreadPoolExecutor(1) as executor:
            one = Site(models.identity(TensorProto.FLOAT), executor)
            body, header = in_binary(np.array(data, np.float32).reshape(-1, 2))
            general = await one.generally(body, header)
            assert whole(one.shortly(body, header)) == whole(general)
            other = (body[: len(body) - cut], header if length is None else (header[0], length))
            short = one.shortly(*other)
            assert short is None or whole(short) == whole(await one.generally(*other))

    asyncio.run(story())


async def test_an_answer_is_of_its_own_request_alone(site: Callable[..., Site], models: Any) -> None:
    one = site(models.identity(TensorProto.FLOAT))
    await one.generally(document([0.0] * 6))
    answers = [one.shortly(document([value, value + 0.5])) for value in range(20)]
    said = [json.loads(answer.parts[0])["outputs"][0]["data"] for answer in answers if answer]
    assert said == [[value, value + 0.5] for value in range(20)]


async def test_requests_of_one_turn_share_a_run_and_each_gets_its_own_answer(
    site: Callable[..., Site], models: Any
) -> None:
    one = site(models.identity(TensorProto.FLOAT), profile=TOGETHER)
    body, header = in_binary(np.ones((1, 2), np.float32))
    await one.generally(document([0.0] * 2))
    await one.generally(body, header)
    before = one.served.statistics().execution_count
    coming = []
    for value in range(5):
        binary, _ = in_binary(np.full((1, 2), value, np.float32))
        coming += [one.soon(document([value, value + 0.5])), one.soon(binary, header)]
    answers = await asyncio.gather(*coming)
    for value in range(5):
        binary, _ = in_binary(np.full((1, 2), value, np.float32))
        assert whole(answers[2 * value]) == whole(await one.generally(document([value, value + 0.5])))
        assert whole(answers[2 * value + 1]) == whole(await one.generally(binary, header))
    statistics = one.served.statistics()
    assert statistics.execution_count - before == 1 + 10  # one for those together
    assert statistics.inference_count == statistics.success.times == 22


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(turns=st.lists(st.lists(st.integers(1, 3), max_size=40), max_size=4))
def test_however_many_arrive_in_a_turn_each_gets_what_it_would_have_got_alone(
    models: Any, turns: list[list[int]]
) -> None:
    async def story() -> None:
        with ThreadPoolExecutor(1) as executor:
            one = Site(models.identity(TensorProto.FLOAT), executor, profile=TOGETHER)
            await one.generally(document([0.0] * 6))
            for turn in turns:
                bodies = [document([number + row / 4 for row in range(2 * rows)]) for number, rows in enumerate(turn)]
                answers = await asyncio.gather(*[one.soon(body) for body in bodies])
                for body, answer in zip(bodies, answers, strict=True):
                    assert whole(answer) == whole(await one.generally(body))

    asyncio.run(story())


async def test_those_who_wait_for_a_run_that_fails_are_answered_the_general_way(
    site: Callable[..., Site], tmp_path: Path
) -> None:
    value = helper.make_tensor_value_info
    path = save(
        tmp_path,
        [
            helper.make_node("ReduceMax", ["x"], ["largest"], axes=[1], keepdims=0),
            helper.make_node("Greater", ["largest", "zero"], ["c"]),
            helper.make_node("Compress", ["x", "c"], ["y"], axis=0),
        ],
        [value("x", TensorProto.FLOAT, [None, 2])],
        [value("y", TensorProto.FLOAT, [None, 2])],
        [helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0])],
    )
    one = site(path, profile=TOGETHER)  # a profile that is wrong: the model gives a row only for what is positive
    await one.generally(document([1.0, 2.0]))
    assert (await one.soon(document([1.0, 2.0]))).status == 200
    coming = [one.soon(document([value, value])) for value in range(3)]
    for number, answer in enumerate(await asyncio.gather(*coming)):
        assert whole(answer) == whole(await one.generally(document([number, number])))


async def test_who_asks_what_the_model_cannot_take_is_refused_alone_of_those_who_share_a_run(
    site: Callable[..., Site], tmp_path: Path
) -> None:
    value = helper.make_tensor_value_info
    path = save(
        tmp_path,
        [helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT64), helper.make_node("Gather", ["t", "i"], ["y"])],
        [value("x", TensorProto.FLOAT, [None, 2])],
        [value("y", TensorProto.FLOAT, [None, 2])],
        [helper.make_tensor("t", TensorProto.FLOAT, [4], [0.0, 10.0, 20.0, 30.0])],
    )
    one = site(path, profile=TOGETHER)
    await one.generally(document([0.0, 1.0]))
    before = one.served.statistics().execution_count
    shared = await asyncio.gather(*[one.soon(document([1.0, 2.0])) for _ in range(3)])
    assert [answer.status for answer in shared] == [200] * 3
    assert one.served.statistics().execution_count == before + 1
    bodies = [document([value, value]) for value in (0, 1, 99, 3)]
    answers = await asyncio.gather(*[one.soon(body) for body in bodies])
    assert [answer.status for answer in answers] == [200, 200, 400, 200]
    assert json.loads(answers[3].parts[0])["outputs"][0]["data"] == [30.0, 30.0]
    assert b"the model" in answers[2].parts[0]


async def test_who_waits_when_a_model_is_unloaded_is_answered(site: Callable[..., Site], models: Any) -> None:
    one = site(models.identity(TensorProto.FLOAT), profile=TOGETHER)
    await one.generally(document([1, 2]))
    coming = one.soon(document([3, 4]))
    await one.served.retire()
    assert json.loads((await coming).parts[0])["outputs"][0]["data"] == [3.0, 4.0]


async def test_a_place_that_is_full_is_answered_before_the_turn_is_over(site: Callable[..., Site], models: Any) -> None:
    one = site(models.identity(TensorProto.FLOAT), profile=TOGETHER)
    await one.generally(document([1, 2]))
    coming = [one.soon(document([number, 0])) for number in range(MOST)]
    assert all(future.done() for future in coming)
    assert [json.loads(future.result().parts[0])["outputs"][0]["data"][0] for future in coming] == list(range(MOST))


async def test_what_has_something_of_its_own_in_its_header_is_not_learnt(
    site: Callable[..., Site], models: Any
) -> None:
    one = site(models.identity(TensorProto.FLOAT))
    array = np.ones((1, 2), np.float32)
    for options in (
        {"id": "7"},
        {"parameters": {"a": 1}},
        {"outputs": (RequestedOutput("y", binary=False),)},
    ):
        body, header = in_binary(array, **options)
        assert (await one.generally(body, header)).status == 200
        assert one.shortly(body, header) is None


async def test_some_of_the_outputs_are_not_all(site: Callable[..., Site], tmp_path: Path) -> None:
    nodes = [helper.make_node("Neg", ["x"], ["y"]), helper.make_node("Abs", ["x"], ["z"])]
    value = helper.make_tensor_value_info
    outputs = [value(name, TensorProto.FLOAT, [None, 2]) for name in "yz"]
    path = save(tmp_path, nodes, [value("x", TensorProto.FLOAT, [None, 2])], outputs)
    one = site(path)
    for names, taken in (("yz", True), ("y", False), ("zy", False)):
        wanted = tuple(RequestedOutput(name, binary=True) for name in names)
        body, header = in_binary(np.array([[1.0, -2.0]], np.float32), outputs=wanted)
        general = await one.generally(body, header)
        assert whole(one.shortly(body, header)) == (whole(general) if taken else None)
    assert whole(one.shortly(document([1.0, -2.0]))) == whole(await one.generally(document([1.0, -2.0])))


async def test_outputs_whose_shape_depends_on_values_come_the_general_way(
    site: Callable[..., Site], tmp_path: Path
) -> None:
    value = helper.make_tensor_value_info
    path = save(
        tmp_path,
        [helper.make_node("NonZero", ["x"], ["y"])],
        [value("x", TensorProto.FLOAT, [None, 2])],
        [value("y", TensorProto.INT64, [2, None])],
    )
    one = site(path)
    bodies = [document(data) for data in ([1, 1], [0, 1], [0, 0])]
    for body in bodies * 10:
        general = await one.generally(body)
        short = one.shortly(body)
        assert short is None or whole(short) == whole(general)
    assert one.shortly(bodies[0]) is None


async def test_more_shapes_than_are_kept_are_answered_as_well(site: Callable[..., Site], models: Any) -> None:
    one = site(models.identity(TensorProto.FLOAT))
    await one.generally(document([1.0] * 2000))
    for pairs in range(1, 3 * MAX_SHAPES):
        assert whole(one.shortly(document([1] * 2 * pairs))) == whole(await one.generally(document([1] * 2 * pairs)))


async def test_a_large_body_comes_the_general_way(site: Callable[..., Site], models: Any) -> None:
    one = site(models.identity(TensorProto.FLOAT))
    await one.generally(document([1.0] * MAX_BYTES))
    assert one.shortly(document([1.0] * MAX_BYTES)) is None


async def test_its_requests_are_counted_like_others(site: Callable[..., Site], models: Any) -> None:
    one = site(models.identity(TensorProto.FLOAT))
    await one.generally(document([1, 2]))
    assert one.shortly(document([1, 2]))
    statistics = one.served.statistics()
    assert (statistics.success.times, statistics.execution_count, statistics.inference_count) == (2, 2, 2)
    body, _ = one.telemetry.render("")
    assert b'openclaw_requests_total{code="200",model="m",protocol="rest",version="1"} 2' in body


async def test_a_model_that_is_being_unloaded_takes_no_shortcut(site: Callable[..., Site], models: Any) -> None:
    one = site(models.identity(TensorProto.FLOAT))
    await one.generally(document([1, 2]))
    await one.served.retire()
    assert one.shortly(document([1, 2])) is None


def save(
    folder: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: list[Any] | None = None
) -> Path:
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    path = folder / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path
