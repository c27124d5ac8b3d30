"""A running server, asked over HTTP."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import zlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import numpy as np
import onnxruntime
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto

INFER = "/v2/models/digits/infer"
HEADER = "Inference-Header-Content-Length"
ZEROS = {"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 64], "data": [0.0] * 64}]}


@pytest.fixture
async def client(digits_server: Any) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(digits_server.url) as session:
        yield session


@asynccontextmanager
async def raw(server: Any) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A bare connection, for what no client library would send."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        async with asyncio.timeout(10):
            yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def document(rows: int = 1, **more: object) -> dict[str, Any]:
    data = np.arange(rows * 64, dtype=np.float32) / 100
    tensor = {"name": "image", "datatype": "FP32", "shape": [rows, 64], "data": data.tolist()}
    return {"inputs": [tensor], **more}


def expected(models: Any, rows: int = 1) -> np.ndarray[Any, Any]:
    images = (np.arange(rows * 64, dtype=np.float32) / 100).reshape(rows, 64)
    scores: np.ndarray[Any, Any] = onnxruntime.InferenceSession(models.digits()).run(None, {"image": images})[0]
    return scores


async def test_the_health_and_metadata_paths_of_the_protocol_answer(client: aiohttp.ClientSession) -> None:
    answers = {}
    for path in ("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models", "/v2/models/digits"):
        async with client.get(path) as answer:
            assert answer.status == 200
            assert answer.content_type == "application/json"
            answers[path] = await answer.json()
    assert answers["/v2"]["name"] == "openclaw"
    assert answers["/v2"]["extensions"] == ["binary_tensor_data", "model_configuration", "parameters", "statistics"]
    assert answers["/v2/health/live"] == {"live": True}
    assert answers["/v2/health/ready"] == {"ready": True}
    assert answers["/v2/models"] == {"models": ["digits"]}
    assert answers["/v2/models/digits"] == {
        "name": "digits",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 64]}],
        "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, 10]}],
    }


@pytest.mark.parametrize("version", ["", "/versions/1"])
async def test_an_inference_in_json_gives_what_onnxruntime_gives(
    client: aiohttp.ClientSession, models: Any, version: str
) -> None:
    async with client.get(f"/v2/models/digits{version}/ready") as answer:
        assert (answer.status, await answer.json()) == (200, {"name": "digits", "ready": True})
    async with client.post(f"/v2/models/digits{version}/infer", json=document(3, id="seven")) as answer:
        assert answer.status == 200
        body = await answer.json()
    output = body["outputs"][0]
    assert (body["id"], body["model_name"], body["model_version"]) == ("seven", "digits", "1")
    assert (output["name"], output["datatype"], output["shape"]) == ("scores", "FP32", [3, 10])
    np.testing.assert_array_equal(np.array(output["data"], np.float32).reshape(3, 10), expected(models, 3))


async def test_an_inference_in_binary_gives_the_same_bytes(client: aiohttp.ClientSession, models: Any) -> None:
    blob = (np.arange(128, dtype=np.float32) / 100).tobytes()
    head = json.dumps(
        {
            "inputs": [
                {"name": "image", "datatype": "FP32", "shape": [2, 64], "parameters": {"binary_data_size": 512}}
            ],
            "outputs": [{"name": "scores", "parameters": {"binary_data": True}}],
        }
    ).encode()
    async with client.post(INFER, data=head + blob, headers={HEADER: str(len(head))}) as answer:
        assert answer.status == 200
        assert answer.content_type == "application/octet-stream"
        length, body = int(answer.headers[HEADER]), await answer.read()
    assert json.loads(body[:length])["outputs"][0]["parameters"] == {"binary_data_size": 80}
    assert body[length:] == expected(models, 2).tobytes()


@pytest.mark.parametrize(
    ("method", "path", "status", "says"),
    [
        ("GET", "/v2/models/other", 404, "there is no model 'other'; served here: 'digits'"),
        ("GET", "/v2/models/other/ready", 404, "there is no model 'other'"),
        ("POST", "/v2/models/other/infer", 404, "there is no model 'other'"),
        ("POST", "/v2/models/digits/versions/2/infer", 404, "has no version '2'; it has: '1'"),
        ("GET", "/v2/models/digits/versions/2", 404, "has no version '2'"),
        ("GET", "/nothing", 404, "there is nothing at /nothing; /openapi.json lists what there is"),
        ("GET", INFER, 405, "GET is not allowed on /v2/models/digits/infer; allowed: POST"),
        ("DELETE", "/v2/models/digits", 405, "allowed: GET, HEAD"),
        ("POST", "/metrics", 405, "POST is not allowed on /metrics"),
        ("POST", INFER, 400, "the body is not JSON"),
    ],
)
async def test_a_wrong_target_is_refused_with_what_there_is(
    client: aiohttp.ClientSession, method: str, path: str, *, status: int, says: str
) -> None:
    async with client.request(method, path) as answer:
        assert answer.status == status
        assert says in (await answer.json())["error"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v2/systemsharedmemory/status", None),
        ("GET", "/v2/systemsharedmemory/region/r/status", None),
        ("POST", "/v2/systemsharedmemory/region/r/register", {"key": "/k", "byte_size": 8}),
        ("POST", "/v2/systemsharedmemory/region/r/unregister", {}),
        ("POST", "/v2/systemsharedmemory/unregister", None),
    ],
)
async def test_shared_memory_is_refused_where_it_is_not_allowed(
    client: aiohttp.ClientSession, method: str, path: str, *, body: Any
) -> None:
    async with client.request(method, path, json=body) as answer:
        assert answer.status == 501
        assert "start the server with --shared-memory" in (await answer.json())["error"]


async def test_a_tensor_in_shared_memory_is_refused_where_that_is_not_allowed(client: aiohttp.ClientSession) -> None:
    asked = document()
    del asked["inputs"][0]["data"]
    asked["inputs"][0]["parameters"] = {"shared_memory_region": "r", "shared_memory_byte_size": 256}
    async with client.post(INFER, json=asked) as answer:
        assert answer.status == 400
        assert "this server allows no shared memory" in (await answer.json())["error"]


@pytest.mark.parametrize("content_type", ["text/xml", "application/x-www-form-urlencoded", "no/such thing;", None])
async def test_a_body_is_read_as_what_it_is_whatever_it_is_called(digits_server: Any, content_type: str | None) -> None:
    said = "" if content_type is None else f"Content-Type: {content_type}\r\n"
    for body, status in ((json.dumps(ZEROS).encode(), b"200"), (b"<inputs/>", b"400")):
        async with raw(digits_server) as (reader, writer):
            head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\n{said}Content-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            assert (await reader.readline()).split()[1] == status


async def test_inputs_that_are_not_the_models_are_refused(client: aiohttp.ClientSession) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"name": "picture"}, 'there is no input "picture"; the model takes image: FP32[-1,64]'),
        ({"datatype": "FP64"}, 'input "image" is FP64; the model takes FP32'),
        ({"shape": [8, 8]}, 'input "image" has shape [8, 8]; the model takes [-1, 64]'),
        ({"shape": [64]}, 'input "image" has shape [64]; the model takes [-1, 64]'),
        ({"shape": [2, 64]}, "data has 64 values; shape [2, 64] takes 128"),
    ]
    for change, says in wrong:
        request = document()
        request["inputs"][0].update(change)
        async with client.post(INFER, json=request) as answer:
            assert answer.status == 400
            assert says in (await answer.json())["error"]
    async with client.post(INFER, json=document(outputs=[{"name": "labels"}])) as answer:
        assert answer.status == 400
        assert (await answer.json())["error"] == 'there is no output "labels"; the model gives scores: FP32[-1,10]'


@pytest.mark.parametrize(("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
async def test_a_compressed_body_is_unpacked(
    client: aiohttp.ClientSession, coding: str, pack: Callable[[bytes], bytes]
) -> None:
    body = pack(json.dumps(ZEROS).encode())
    async with client.post(INFER, data=body, headers={"Content-Encoding": coding}) as answer:
        assert (await answer.json())["outputs"][0]["data"] == [0.0] * 10


@pytest.mark.parametrize(
    ("coding", "body", "status", "says"),
    [
        ("br", b"x", 415, 'Content-Encoding is "br"; allowed: one of gzip, deflate and identity'),
        ("gzip", gzip.compress(bytes(2**21)), 413, "unpacks to more than 1048576 bytes"),
        ("gzip", gzip.compress(b"{}")[:-4], 400, "cut short"),
    ],
)
async def test_a_compressed_body_that_is_wrong_is_refused(
    client: aiohttp.ClientSession, coding: str, body: bytes, *, status: int, says: str
) -> None:
    async with client.post(INFER, data=body, headers={"Content-Encoding": coding}) as answer:
        assert answer.status == status
        assert says in (await answer.json())["error"]


async def test_a_long_answer_is_packed_for_who_asks_for_it(digits_server: Any) -> None:
    tensor = {"name": "image", "datatype": "FP32", "shape": [100, 64], "data": [0.5] * 6400}
    body = json.dumps({"inputs": [tensor]})
    async with aiohttp.ClientSession(digits_server.url, auto_decompress=False) as client:
        async with client.post(INFER, data=body, headers={"Accept-Encoding": "identity"}) as answer:
            assert "Content-Encoding" not in answer.headers
            plain = await answer.read()
        async with client.post(INFER, data=body, headers={"Accept-Encoding": "gzip"}) as answer:
            assert (answer.headers["Content-Encoding"], answer.headers["Vary"]) == ("gzip", "Accept-Encoding")
            assert gzip.decompress(await answer.read()) == plain


@pytest.mark.parametrize("length", ["many", "9" * 5000, "-1", str(10**6)])
async def test_a_long_body_with_a_wrong_length_of_its_header_is_refused(
    client: aiohttp.ClientSession, length: str
) -> None:
    async with client.post(INFER, data=b" " * 70_000, headers={HEADER: length}) as answer:
        assert answer.status == 400
        assert HEADER in (await answer.json())["error"]


async def test_a_tensor_without_a_header_is_the_models_only_input(client: aiohttp.ClientSession, models: Any) -> None:
    images = np.random.default_rng(5).random((3, 64), dtype=np.float32)
    async with client.post(INFER, data=images.tobytes(), headers={HEADER: "0"}) as answer:
        body = await answer.read()
        head = json.loads(body[: int(answer.headers[HEADER])])
    (output,) = head["outputs"]
    scores = np.frombuffer(body[int(answer.headers[HEADER]) :], np.float32).reshape(output["shape"])
    expected = onnxruntime.InferenceSession(models.digits()).run(None, {"image": images})[0]
    np.testing.assert_array_equal(scores, expected)


async def test_a_tensor_without_a_header_that_is_no_whole_row_is_refused(client: aiohttp.ClientSession) -> None:
    async with client.post(INFER, data=bytes(100), headers={HEADER: "0"}) as answer:
        assert (answer.status, "image" in (await answer.json())["error"]) == (400, True)


async def test_the_v1_protocol_predicts_rows_and_columns(client: aiohttp.ClientSession) -> None:
    async with client.post("/v1/models/digits:predict", json={"instances": [[0.0] * 64] * 2}) as answer:
        assert (answer.status, await answer.json()) == (200, {"predictions": [[0.0] * 10] * 2})
    async with client.post("/v1/models/digits:predict", json={"inputs": [[0.0] * 64]}) as answer:
        assert await answer.json() == {"predictions": [[0.0] * 10]}
    async with client.get("/v1/models") as answer:
        assert await answer.json() == {"models": ["digits"]}
    async with client.get("/v1/models/digits") as answer:
        assert (answer.status, await answer.json()) == (200, {"name": "digits", "ready": True})


@pytest.mark.parametrize(
    ("method", "path", "status", "says"),
    [
        ("GET", "/v1/models/digits:predict", 405, "GET is not allowed"),
        ("POST", "/v1/models/letters:predict", 404, "there is no model 'letters'"),
        ("POST", "/v1/models/digits:explain", 404, "there is nothing at /v1/models/digits:explain"),
        ("POST", "/v1/models/digits:predict", 400, "give one of them"),
    ],
)
async def test_a_wrong_request_of_the_v1_protocol_is_refused(
    client: aiohttp.ClientSession, method: str, path: str, *, status: int, says: str
) -> None:
    async with client.request(method, path, json={} if method == "POST" else None) as answer:
        assert answer.status == status
        assert says in (await answer.json())["error"]


async def test_what_is_served_is_described(client: aiohttp.ClientSession) -> None:
    async with client.get("/openapi.json") as answer:
        document = await answer.json()
    assert document["openapi"] == "3.1.0"
    assert "/v2/models/{model}/infer" in document["paths"]
    assert not any("systemsharedmemory" in path for path in document["paths"])


async def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_sent(digits_server: Any) -> None:
    async with raw(digits_server) as (reader, writer):
        writer.write(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {2**40}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 413 " in head.splitlines()[0]
        assert f"the body has {2**40} bytes; allowed: {2**20}" in (await reader.readuntil(b"}")).decode()


async def test_a_chunked_body_is_refused_once_it_is_too_large(digits_server: Any) -> None:
    async with raw(digits_server) as (reader, writer):
        writer.write(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        for _ in range(17):
            writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
    assert b" 413 " in head.splitlines()[0]


async def test_a_client_that_hangs_up_in_its_body_disturbs_nobody(
    digits_server: Any, client: aiohttp.ClientSession
) -> None:
    for ending in (b"", b"5\r\nab"):
        framing = b"Transfer-Encoding: chunked" if ending else b"Content-Length: 100"
        async with raw(digits_server) as (_, writer):
            writer.write(b"POST " + INFER.encode() + b" HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n\r\n" + ending)
            await writer.drain()
    async with client.post(INFER, json=document()) as answer:
        assert answer.status == 200
    async with asyncio.timeout(5):
        idle = 'openclaw_requests_in_flight{model="digits"} 0.0'
        while idle not in await exposition(client):  # noqa: ASYNC110 - the state is another process's
            await asyncio.sleep(0.02)
    assert "Traceback" not in digits_server.log


async def test_bytes_that_are_not_http_get_400_and_no_traceback(digits_server: Any) -> None:
    for junk in (
        b"\x00\x01\x02\r\n\r\n",
        b"G\xffT / HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    ):
        async with raw(digits_server) as (reader, writer):
            writer.write(junk)
            assert b" 400 " in (await reader.read(4096)).splitlines()[0]
    assert "Traceback" not in digits_server.log


async def exposition(client: aiohttp.ClientSession) -> str:
    async with client.get("/metrics") as answer:
        assert answer.status == 200
        return await answer.text()


def value(text: str, sample: str) -> float:
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(sample + " "))


async def test_metrics_count_requests_by_status_and_only_by_known_model(client: aiohttp.ClientSession) -> None:
    good = 'openclaw_requests_total{code="200",model="digits",protocol="rest",version="1"}'
    bad = good.replace("200", "400")
    before = await exposition(client)
    for request in (document(), document(), {"inputs": []}):
        async with client.post(INFER, json=request):
            pass
    async with client.post("/v2/models/made-up/infer", json={}):
        pass
    after = await exposition(client)
    assert value(after, good) == value(before, good) + 2
    assert value(after, bad) == value(before, bad) + 1
    assert value(after, 'openclaw_model_ready{model="digits"}') == 1
    assert value(after, 'openclaw_model_load_seconds{model="digits"}') > 0
    counted = 'openclaw_inference_duration_seconds_count{model="digits"}'
    assert value(after, counted) == value(before, counted) + 2
    assert "process_resident_memory_bytes" in after
    assert "made-up" not in after


@settings(max_examples=60, deadline=None)
@given(
    body=st.binary(max_size=300),
    header=st.one_of(st.none(), st.integers(-1, 300).map(str)),
    path=st.sampled_from([INFER, "/v2/models/digits", "/v2", "/v2/models/a%2Fb/infer", "/v2/models//infer"]),
)
def test_no_body_makes_the_server_fail(digits_server: Any, body: bytes, header: str | None, *, path: str) -> None:
    assume(not (header == "0" and len(body) == 256))  # the bytes of a whole image
    connection = http.client.HTTPConnection("127.0.0.1", digits_server.port, timeout=5)
    connection.request("POST", path, body, {} if header is None else {HEADER: header})
    answer = connection.getresponse()
    assert 400 <= answer.status < 500
    assert json.loads(answer.read())["error"]
    connection.close()


WIRE = [
    ("BOOL", TensorProto.BOOL, [True, False]),
    ("UINT8", TensorProto.UINT8, [0, 255]),
    ("UINT16", TensorProto.UINT16, [0, 65535]),
    ("UINT32", TensorProto.UINT32, [0, 2**32 - 1]),
    ("UINT64", TensorProto.UINT64, [0, 2**64 - 1]),
    ("INT8", TensorProto.INT8, [-128, 127]),
    ("INT16", TensorProto.INT16, [-(2**15), 2**15 - 1]),
    ("INT32", TensorProto.INT32, [-(2**31), 2**31 - 1]),
    ("INT64", TensorProto.INT64, [-(2**63), 2**63 - 1]),
    ("FP16", TensorProto.FLOAT16, [-1.5, 65504.0]),
    ("FP32", TensorProto.FLOAT, [0.1, -3.4028234663852886e38]),
    ("FP64", TensorProto.DOUBLE, [0.1, 1.7976931348623157e308]),
    ("BYTES", TensorProto.STRING, ["", "grün"]),
]


@pytest.mark.parametrize(("datatype", "onnx_type", "data"), WIRE, ids=[row[0] for row in WIRE])
async def test_every_datatype_passes_through_a_model(
    models: Any, datatype: str, onnx_type: int, *, data: list[Any]
) -> None:
    from openclaw.config import ModelConfig
    from openclaw.serving.counters import SharedCounters
    from openclaw.serving.inference import InferResponse
    from openclaw.serving.loading import load
    from openclaw.serving.protocol import decode_request, encode_response
    from openclaw.serving.served import Served
    from openclaw.serving.telemetry import Telemetry

    path = models.identity(onnx_type)
    loaded = load(ModelConfig(name="identity", uri=path.as_uri()), path, threads=1)
    metrics = Telemetry(SharedCounters()).metrics.model("identity")
    served = Served(loaded, "1", metrics=metrics, executor=ThreadPoolExecutor(1), runs=1)
    request = {"inputs": [{"name": "x", "datatype": datatype, "shape": [1, 2], "data": data}]}
    coming = served.infer(decode_request(json.dumps(request).encode()))
    answer = coming if isinstance(coming, InferResponse) else await coming
    output = json.loads(encode_response(answer).body)["outputs"][0]
    assert (output["datatype"], output["shape"]) == (datatype, [1, 2])
    if datatype == "FP32":
        assert np.array_equal(np.array(output["data"], np.float32), np.array(data, np.float32))
    else:
        assert output["data"] == data
