"""Every datatype of the protocol, on the wire and through a real model."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper

from openclaw.errors import InvalidRequest, ModelInvalid
from openclaw.execute.session import Array, Model
from openclaw.graph import bfloat16
from openclaw.graph.signature import NUMPY_OF
from openclaw.serving.protocol import (
    Encoded,
    InferRequest,
    InferResponse,
    RequestedOutput,
    Tensor,
    bind,
    decode_request,
    encode_request,
    encode_response,
)
from openclaw.serving.tensors import decode_binary, decode_json, decode_plain, encode_binary, encode_json

ONNX_TYPE = {
    "BOOL": TensorProto.BOOL, "BYTES": TensorProto.STRING,
    "UINT8": TensorProto.UINT8, "UINT16": TensorProto.UINT16, "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64, "INT8": TensorProto.INT8, "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32, "INT64": TensorProto.INT64, "FP16": TensorProto.FLOAT16,
    "BF16": TensorProto.BFLOAT16, "FP32": TensorProto.FLOAT, "FP64": TensorProto.DOUBLE,
}  # fmt: skip
EXTREMES: dict[str, list[Any]] = {
    "BOOL": [True, False],
    "BYTES": ["grüß\0e", ""],
    **{
        name: [int(np.iinfo(dtype.str).min), int(np.iinfo(dtype.str).max)]
        for name, dtype in NUMPY_OF.items()
        if dtype.kind in "iu" and name != "BF16"
    },
    **{name: [-0.5, float(np.finfo(NUMPY_OF[name].str).max)] for name in ("FP16", "FP32", "FP64")},
    "BF16": [-0.5, bfloat16.LARGEST],
}
FLOAT32 = st.floats(width=32)


def answer(model: Model, sent: Encoded) -> Encoded:
    """What a server does between the two codecs."""
    length = None if sent.header_length is None else str(sent.header_length)
    request = decode_request(sent.body, length)
    arrays, wanted = bind(request, model.signature)
    results = model.infer([output.name for output in wanted], arrays)
    tensors = tuple(
        Tensor(output.name, model.datatypes[output.name], array, output.binary)
        for output, array in zip(wanted, results, strict=True)
    )
    return encode_response(InferResponse("m", "1", tensors, request.id))


def test_the_tests_know_every_datatype_of_the_protocol() -> None:
    assert ONNX_TYPE.keys() == EXTREMES.keys() == NUMPY_OF.keys()


@pytest.mark.parametrize("datatype", sorted(NUMPY_OF))
@pytest.mark.parametrize("binary", [True, False])
def test_a_model_gives_back_the_extremes_of_its_datatype(models: Any, datatype: str, binary: bool) -> None:
    model = Model.from_file(models.identity(ONNX_TYPE[datatype]))
    array = decode_json([EXTREMES[datatype]], datatype, (1, 2), where="x")
    sent = encode_request(InferRequest((Tensor("x", datatype, array, binary),), binary_output=binary))
    got = answer(model, sent)
    output = orjson.loads(got.body[: got.header_length])["outputs"][0]
    assert (output["datatype"], output["shape"]) == (datatype, [1, 2])
    if binary:
        assert got.header_length is not None
        assert got.body[got.header_length :] == bytes(encode_binary(array, datatype))
    else:
        back = decode_json(output["data"], datatype, (1, 2), where="y")
        np.testing.assert_array_equal(back, array, strict=True)


@given(st.lists(FLOAT32, max_size=8))
def test_rounding_to_bfloat16_is_that_of_the_reference_library(values: list[float]) -> None:
    numbers = np.array(values, np.float32)
    wanted = numbers.astype(ml_dtypes.bfloat16)
    bits = bfloat16.to_bits(numbers)
    finite = ~np.isnan(numbers)
    np.testing.assert_array_equal(bits[finite], wanted.view(np.uint16)[finite])
    np.testing.assert_array_equal(bfloat16.to_float32(bits), wanted.astype(np.float32))


@given(hnp.arrays(np.uint16, st.integers(0, 8)))
def test_what_is_a_bfloat16_already_is_not_rounded(bits: Any) -> None:
    wide = bfloat16.to_float32(bits)
    number = ~np.isnan(wide)
    np.testing.assert_array_equal(bfloat16.to_bits(wide)[number], bits[number])


@pytest.mark.parametrize("given_", ["bits", "ml_dtypes", "list"])
def test_a_model_takes_bfloat16_as_bits_as_an_array_and_as_numbers(models: Any, given_: str) -> None:
    numbers = [[1.5, -2.0]]
    bits = bfloat16.to_bits(np.array(numbers, np.float32))
    values: dict[str, Any] = {"bits": bits, "ml_dtypes": np.array(numbers, ml_dtypes.bfloat16), "list": numbers}
    got = Model.from_file(models.identity(TensorProto.BFLOAT16)).run({"x": values[given_]})["y"]
    np.testing.assert_array_equal(got, bits, strict=True)


@pytest.mark.parametrize(
    "given_",
    [
        [["grün", "b"]],
        np.array([["grün", "b"]]),
        np.array([["grün", "b"]], dtype=object),
        np.array([["grün".encode(), b"b"]]),
        np.array([["grün".encode(), "b"]], dtype=object),
    ],
    ids=["list", "text", "object", "bytes", "mixed"],
)
def test_a_model_takes_strings_as_text_and_as_utf8(models: Any, given_: Any) -> None:
    got = Model.from_file(models.identity(TensorProto.STRING)).run({"x": given_})["y"]
    np.testing.assert_array_equal(got, np.array([["grün", "b"]], dtype=object), strict=True)


@pytest.mark.parametrize(
    ("given_", "says"),
    [
        (np.array([[b"a", b"\xff"]], dtype=object), "input 'x' holds bytes that are not UTF-8"),
        (np.array([[b"a", b"\xff"]]), "input 'x' holds bytes that are not UTF-8"),
        (np.array([["a", 7]], dtype=object), "input 'x' holds int; the model takes strings"),
        (np.array([[1.0, 2.0]]), "input 'x' holds float; the model takes strings"),
    ],
)
def test_what_is_no_string_is_refused(models: Any, given_: Any, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        Model.from_file(models.identity(TensorProto.STRING)).run({"x": given_})


def save(path: Path, inputs: dict[str, int], nodes: list[onnx.NodeProto], *, outputs: dict[str, int]) -> Path:
    taken, given_ = (
        [helper.make_tensor_value_info(name, datatype, ["N"]) for name, datatype in tensors.items()]
        for tensors in (inputs, outputs)
    )
    graph = helper.make_graph(nodes, "g", taken, given_)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_bfloat16_stands_beside_other_datatypes(tmp_path: Path) -> None:
    path = save(
        tmp_path / "mixed.onnx",
        {"half": TensorProto.BFLOAT16, "whole": TensorProto.FLOAT},
        [
            helper.make_node("Cast", ["half"], ["widened"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["widened", "whole"], ["sum"]),
            helper.make_node("Cast", ["sum"], ["rounded"], to=TensorProto.BFLOAT16),
        ],
        outputs={"sum": TensorProto.FLOAT, "rounded": TensorProto.BFLOAT16},
    )
    model = Model.from_file(path)
    got = model.run({"half": [1.0, 2.0], "whole": [0.5, 2.0**-20]})
    np.testing.assert_array_equal(got["sum"], np.array([1.5, 2.0 + 2.0**-20], np.float32), strict=True)
    np.testing.assert_array_equal(got["rounded"], bfloat16.to_bits(np.array([1.5, 2.0], np.float32)), strict=True)
    alone = model.run({"half": [1.0], "whole": [0.5]}, outputs=["sum"])
    np.testing.assert_array_equal(alone["sum"], np.array([1.5], np.float32), strict=True)
    empty = model.run({"half": [], "whole": np.zeros(0, np.float32)})
    assert empty["rounded"].shape == (0,)


def test_bfloat16_outputs_live_longer_than_the_inference(models: Any) -> None:
    model = Model.from_file(models.identity(TensorProto.BFLOAT16))
    kept = [model.run({"x": np.full((1000, 2), number, np.uint16)})["y"] for number in range(20)]
    assert [int(array.min()) for array in kept] == [int(array.max()) for array in kept] == list(range(20))


def test_a_model_that_onnxruntime_cannot_feed_is_refused_when_loaded(tmp_path: Path) -> None:
    path = save(
        tmp_path / "strings.onnx",
        {"text": TensorProto.STRING},
        [
            helper.make_node("Cast", ["text"], ["number"], to=TensorProto.FLOAT),
            helper.make_node("Cast", ["number"], ["half"], to=TensorProto.BFLOAT16),
        ],
        outputs={"half": TensorProto.BFLOAT16},
    )
    with pytest.raises(ModelInvalid, match="input 'text' is strings while output 'half' is bfloat16"):
        Model.from_file(path)


@given(st.binary(max_size=60), st.integers(0, 5))
def test_any_bytes_are_refused_or_are_the_strings_that_they_encode(data: bytes, count: int) -> None:
    try:
        array = decode_binary(memoryview(data), "BYTES", (count,), where="x")
    except InvalidRequest:
        return
    assert array.shape == (count,)
    assert all(isinstance(item, str) for item in array)
    assert encode_binary(array, "BYTES") == data


@pytest.mark.parametrize("data", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\x80"])
def test_strings_that_are_not_utf8_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequest, match="element 0 is not UTF-8"):
        decode_binary(memoryview(len(data).to_bytes(4, "little") + data), "BYTES", (1,), where="x")


@given(st.sampled_from(sorted(NUMPY_OF)), st.binary(max_size=64), st.lists(st.integers(0, 2**31 - 1), max_size=4))
def test_any_shape_over_any_bytes_is_refused_or_fits(datatype: str, data: bytes, shape: list[int]) -> None:
    try:
        array = decode_binary(memoryview(data), datatype, tuple(shape), where="x")
    except InvalidRequest:
        return
    assert array.shape == tuple(shape)
    assert array.dtype == NUMPY_OF[datatype]
    assert datatype in {"BOOL", "BYTES"} or array.tobytes() == data


NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.integers(-300, 300) | st.floats(allow_nan=False, allow_infinity=False)
LIMITS = [
    limit
    for dtype in NUMPY_OF.values()
    if dtype.kind in "iu"
    for limit in (int(np.iinfo(dtype.str).min), int(np.iinfo(dtype.str).max))
]
EDGES = st.sampled_from(
    [limit + step for limit in LIMITS for step in (-1, 0, 1) if -(2**63) <= limit + step < 2**64]
    + [65504.0, 65519.999, 65520.0, 3.4028234663852886e38, 3.4028235677973362e38, 3.4028235677973366e38, -1e39, 5e-324]
)


@given(st.sampled_from(sorted(NUMPY_OF)), st.lists(NUMBERS | EDGES | st.booleans(), max_size=4))
def test_the_quick_way_takes_what_the_careful_one_takes_and_gives_the_same(datatype: str, data: list[Any]) -> None:
    quick = decode_plain(data, datatype, [len(data)])
    dtype = NUMPY_OF[datatype]
    with np.errstate(over="ignore"):
        try:
            careful = np.array(data, dtype)
        except OverflowError:
            careful = None
    if quick is None:
        return
    assert careful is not None
    assert np.isfinite(quick).all()
    assert not any(isinstance(item, bool) for item in data)
    assert dtype.kind == "f" or all(isinstance(item, int) for item in data)
    np.testing.assert_array_equal(quick, careful, strict=True)


@pytest.mark.parametrize("count", [4095, 4096, 4097, 8192, 10_000])
@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64", "INT8", "UINT64"])
def test_long_lists_are_read_whole(datatype: str, count: int) -> None:
    data = [number % 100 for number in range(count)]
    array = decode_plain(data, datatype, [count])
    assert array is not None
    np.testing.assert_array_equal(array, np.array(data, NUMPY_OF[datatype]), strict=True)
    data[-1] = 10**30
    assert decode_plain(data, "FP16", [count]) is decode_plain(data, "INT8", [count]) is None


@pytest.mark.parametrize("datatype", sorted(NUMPY_OF.keys() - {"BOOL", "BYTES", "BF16"}))
def test_usual_numbers_are_taken_the_quick_way(datatype: str) -> None:
    assert decode_plain([0, 1, 2], datatype, [1, 3]) is not None


def written(fields: dict[str, str]) -> str:
    return "{" + ",".join(f'"{key}":{value}' for key, value in fields.items()) + "}"


@pytest.mark.parametrize("text", ["[],", "{},", "0,", '"",', "[0],", '{"a":0},'])
@pytest.mark.parametrize("field", ["inputs", "data", "shape", "outputs"])
def test_no_request_takes_memory_out_of_proportion(field: str, text: str) -> None:
    many = f"[{text * 20_000}0]"
    tensor = {"name": '"x"', "datatype": '"FP32"', "shape": "[3]", "data": "[0]"}
    fields = {"inputs": f"[{written(tensor | {field: many})}]"} | ({} if field in tensor else {field: many})
    body = written(fields).encode()
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequest) as refusal:
            decode_request(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(str(refusal.value)) < 500
    assert peak < 100 * len(body)


def address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])


def test_a_large_binary_tensor_is_not_copied_on_its_way_in_or_out() -> None:
    numbers = np.arange(1 << 16, dtype=np.float32).reshape(256, 256)
    head = encode_request(InferRequest((Tensor("x", "FP32", numbers, True),)))
    # A header of whole words: what follows lies aligned.
    text = bytes(head.parts[0])
    text += b" " * (-len(text) % 8)
    body = bytearray(text + numbers.tobytes())
    array = decode_request(body, str(len(text))).inputs[0].array
    assert np.shares_memory(array, np.frombuffer(body, np.uint8))
    sent = encode_response(InferResponse("m", "1", (Tensor("y", "FP32", numbers, True),)))
    assert address(np.frombuffer(sent.parts[1], np.float32)) == address(numbers)


def test_bytes_that_lie_unaligned_are_moved() -> None:
    array = decode_binary(memoryview(b"\0" + np.arange(3, dtype=np.float64).tobytes())[1:], "FP64", (3,), where="x")
    assert array.flags.aligned
    np.testing.assert_array_equal(array, np.arange(3.0))


@pytest.mark.parametrize("number", [bfloat16.LARGEST * 1.004, -1e39])
def test_a_number_beyond_bfloat16_is_refused(number: float) -> None:
    with pytest.raises(InvalidRequest, match="is too large for BF16"):
        decode_json([number], "BF16", (1,), where="x")


def test_json_writes_null_where_bfloat16_is_not_a_number() -> None:
    bits = bfloat16.to_bits(np.array([1.0, np.inf, np.nan], np.float32))
    assert orjson.loads(orjson.dumps(encode_json(bits, "BF16"), option=orjson.OPT_SERIALIZE_NUMPY)) == [1, None, None]


def test_outputs_of_one_answer_travel_each_in_its_own_way(models: Any) -> None:
    model = Model.from_file(models.pair())
    ones = np.ones(2, np.int64)
    wanted = (RequestedOutput("difference", True), RequestedOutput("sum", False))
    request = InferRequest((Tensor("a", "INT64", ones * 3), Tensor("b", "INT64", ones, True)), wanted, "7")
    got = answer(model, encode_request(request))
    assert got.header_length is not None
    document = orjson.loads(got.body[: got.header_length])
    assert document["id"] == "7"
    assert document["outputs"] == [
        {"name": "difference", "datatype": "INT64", "shape": [2], "parameters": {"binary_data_size": 16}},
        {"name": "sum", "datatype": "INT64", "shape": [2], "data": [4, 4]},
    ]
    assert got.body[got.header_length :] == (ones * 2).tobytes()
