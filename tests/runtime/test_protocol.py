"""Bytes to tensors and back, without a server."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from openclaw.errors import InvalidRequest
from openclaw.graph.signature import NUMPY_OF, Signature, TensorSpec
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

DATATYPES = sorted(NUMPY_OF)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
PARAMETERS = st.dictionaries(
    TEXT, TEXT | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False),
    max_size=3,
)  # fmt: skip


def elements(datatype: str, binary: bool) -> st.SearchStrategy[Any] | None:
    dtype = NUMPY_OF[datatype]
    if datatype == "BYTES":
        return TEXT
    if datatype == "BF16" and not binary:
        # An exponent of ones is an infinity or a NaN, which JSON does not have.
        return hnp.from_dtype(dtype).filter(lambda bits: bits & 0x7F80 != 0x7F80)
    if dtype.kind == "f":
        return hnp.from_dtype(dtype, allow_nan=binary, allow_infinity=binary)
    return hnp.from_dtype(dtype)


@st.composite
def tensors(draw: st.DrawFn, name: str = "x") -> Tensor:
    datatype, binary = draw(st.sampled_from(DATATYPES)), draw(st.booleans())
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    array = draw(hnp.arrays(NUMPY_OF[datatype], shape, elements=elements(datatype, binary)))
    return Tensor(name, datatype, array, binary, draw(PARAMETERS))


@st.composite
def requests(draw: st.DrawFn) -> InferRequest:
    names = draw(st.lists(TEXT.filter(bool), min_size=1, max_size=3, unique=True))
    outputs = st.lists(
        st.builds(RequestedOutput, TEXT, st.booleans(), st.none()), min_size=1, max_size=3, unique_by=lambda o: o.name
    )
    return InferRequest(
        inputs=tuple(draw(tensors(name)) for name in names),
        outputs=draw(st.none() | outputs.map(tuple)),
        id=draw(st.none() | TEXT),
        binary_output=draw(st.booleans()),
        parameters=draw(PARAMETERS),
    )


def decoded(encoded: Encoded) -> InferRequest:
    length = None if encoded.header_length is None else str(encoded.header_length)
    return decode_request(encoded.body, length)


def assert_same(left: Tensor, right: Tensor) -> None:
    assert left._replace(array=None) == right._replace(array=None)  # type: ignore[arg-type]
    assert left.array.dtype == right.array.dtype
    np.testing.assert_array_equal(left.array, right.array, strict=True)


@given(requests())
def test_what_is_encoded_is_decoded_to_the_same(request_: InferRequest) -> None:
    back = decoded(encode_request(request_))
    assert back._replace(inputs=()) == request_._replace(inputs=())
    for given_, got in zip(request_.inputs, back.inputs, strict=True):
        assert_same(given_, got)


@given(tensors())
def test_a_nested_list_means_the_same_as_a_flat_one(tensor: Tensor) -> None:
    if tensor.array.ndim == 0 or "F" in tensor.datatype:
        tensor = Tensor("x", "INT32", np.arange(6, dtype=np.int32).reshape(1, 2, 3))
    document = {
        "inputs": [
            {"name": "x", "datatype": tensor.datatype, "shape": tensor.array.shape, "data": tensor.array.tolist()}
        ]
    }
    if 0 in tensor.array.shape[:-1]:
        return
    got = decode_request(json.dumps(document).encode()).inputs[0]
    np.testing.assert_array_equal(got.array, tensor.array, strict=True)


@given(tensors())
def test_a_response_carries_the_model_the_id_and_the_tensors(tensor: Tensor) -> None:
    encoded = encode_response(InferResponse("digits", "1", (tensor,), id="7"))
    head = json.loads(encoded.body[: encoded.header_length])
    assert (head["model_name"], head["model_version"], head["id"]) == ("digits", "1", "7")
    output = head["outputs"][0]
    assert output["shape"] == list(tensor.array.shape)
    rest = b"" if encoded.header_length is None else encoded.body[encoded.header_length :]
    assert output.get("parameters", {}).get("binary_data_size", 0) == len(rest)
    assert ("data" in output) != tensor.binary


JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda child: st.lists(child, max_size=4) | st.dictionaries(TEXT, child, max_size=3),
    max_leaves=12,
)
TENSORISH = st.fixed_dictionaries(
    {},
    optional={
        "name": st.just("x") | JSONISH,
        "datatype": st.sampled_from([*DATATYPES, "FP8"]) | JSONISH,
        "shape": st.lists(st.integers(-1, 3) | st.integers(), max_size=3) | JSONISH,
        "data": st.lists(st.integers(-300, 300) | st.booleans() | st.floats(allow_nan=False), max_size=9) | JSONISH,
        "parameters": st.fixed_dictionaries({}, optional={"binary_data_size": st.integers(-1, 40) | JSONISH}) | JSONISH,
    },
)
REQUESTISH = st.fixed_dictionaries(
    {"inputs": st.lists(TENSORISH, max_size=3) | JSONISH},
    optional={"outputs": st.lists(TENSORISH, max_size=2) | JSONISH, "id": JSONISH, "parameters": JSONISH},
)
SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("y", "FP32", (-1, 2)),))


def refused_or_bound(body: bytes, header: str | None) -> None:
    try:
        arrays, _ = bind(decode_request(body, header), SIGNATURE)
    except InvalidRequest as error:
        sentence = str(error)
    else:
        assert arrays["x"].dtype == np.float32
        assert arrays["x"].shape[1:] == (2,)
        sentence = "bound"
    assert 0 < len(sentence) < 2000


@given(st.binary(max_size=200), st.none() | st.text(max_size=5) | st.integers(0, 250).map(str))
def test_arbitrary_bytes_are_refused_or_understood(body: bytes, header: str | None) -> None:
    refused_or_bound(body, header)


@given(REQUESTISH, st.binary(max_size=40), st.booleans())
def test_almost_requests_are_refused_or_understood(document: Any, rest: bytes, binary: bool) -> None:
    try:
        text = json.dumps(document).encode()
    except ValueError:
        return
    refused_or_bound(text + rest if binary else text, str(len(text)) if binary else None)


@st.composite
def damaged(draw: st.DrawFn) -> tuple[bytes, str]:
    """A right request with binary tensors after one accident on its way."""
    request_ = draw(requests())
    encoded = encode_request(
        request_._replace(inputs=tuple(tensor._replace(binary=True) for tensor in request_.inputs))
    )
    body, length = bytearray(encoded.body), encoded.header_length or 0
    place = draw(st.integers(0, len(body) - 1))
    match draw(st.sampled_from(["flip", "cut", "insert", "append", "length"])):
        case "flip":
            body[place] ^= 1 << draw(st.integers(0, 7))
        case "cut":
            del body[place : place + draw(st.integers(1, 8))]
        case "insert":
            body[place:place] = draw(st.binary(min_size=1, max_size=8))
        case "append":
            body += draw(st.binary(min_size=1, max_size=8))
        case _:
            length += draw(st.integers(-8, 8))
    return bytes(body), str(length)


@settings(max_examples=400)
@given(damaged())
def test_a_damaged_request_is_refused_or_consistent(sent: tuple[bytes, str]) -> None:
    try:
        request_ = decode_request(*sent)
    except InvalidRequest:
        return
    assert request_.inputs
    for tensor in request_.inputs:
        assert tensor.array.dtype == NUMPY_OF[tensor.datatype]
        assert tensor.datatype == "BYTES" or tensor.array.nbytes <= len(sent[0])
    back = decoded(encode_request(request_))
    assert [tensor.array.tobytes() for tensor in back.inputs if tensor.datatype != "BYTES"] == [
        tensor.array.tobytes() for tensor in request_.inputs if tensor.datatype != "BYTES"
    ]


def request_of(**tensor: object) -> bytes:
    fields = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2], **tensor}
    return json.dumps({"inputs": [{key: value for key, value in fields.items() if value is not None}]}).encode()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"inputs":' + b"[" * 5_000 + b"]" * 5_000 + b"}", "not JSON"),
        (b"[1]", "the body is [1]; an object with inputs is needed"),
        (b"{}", "inputs is missing"),
        (b'{"inputs": []}', "inputs is []"),
        (b'{"inputs": [3]}', "inputs[0] is 3"),
        (request_of(name=7), "inputs[0].name is 7"),
        (request_of(datatype="FLOAT"), 'datatype is "FLOAT"; allowed: BOOL'),
        (request_of(shape=None), "shape is missing"),
        (request_of(shape=[1, -2]), "holds -2; allowed: 0 to 2147483647"),
        (request_of(shape=[1.5]), "holds 1.5"),
        (request_of(shape=[True]), "holds true"),
        (request_of(shape=[2**40]), "holds 1099511627776"),
        (request_of(shape=[1] * 65), "65 dimensions; at most 64"),
        (request_of(shape=[2**31 - 1] * 4), "data has 2 values"),
        (request_of(shape=[0] + [2**31 - 1] * 4, data=[]), "is too large"),
        (request_of(shape=[3]), "data has 2 values; shape [3] takes 3"),
        (request_of(data=None), "neither data nor parameters.binary_data_size"),
        (request_of(data=5), "data is 5; a list is needed"),
        (request_of(data=[1, "2"]), 'data holds "2"; FP32 takes numbers'),
        (request_of(data=[1, None]), "data holds null; FP32 takes numbers"),
        (request_of(data=[1, True]), "data holds true; FP32 takes numbers"),
        (request_of(data=[1, 1e39]), "data holds 1e+39, which is too large for FP32"),
        (request_of(data=[[1], [2]]), "rows of 1 at depth 2; shape [1, 2] takes 2"),
        (request_of(data=[[1, 2], [3]]), "nested unevenly"),
        (request_of(shape=[1, 1], data=[[[1]]]), "nested unevenly or too deep"),
        (request_of(datatype="INT8", data=[1, 128]), "data holds 128; INT8 takes -128 to 127"),
        (request_of(datatype="UINT64", data=[1, -1]), "data holds -1; UINT64 takes 0 to 18446744073709551615"),
        (request_of(datatype="UINT64", data=[1, 2**64]), "UINT64 takes integers"),
        (request_of(datatype="INT32", data=[1, 2.5]), "data holds 2.5; INT32 takes integers"),
        (request_of(datatype="BOOL", data=[1, 0]), "data holds 1; BOOL takes true or false"),
        (request_of(datatype="BYTES", data=["a", 0]), "data holds 0; BYTES takes strings"),
        (request_of(parameters=3), "parameters is 3; an object is needed"),
        (request_of(parameters={"binary_data_size": 8}), "both data and parameters.binary_data_size"),
        (request_of(data=None, parameters={"binary_data_size": -8}), "binary_data_size is -8"),
        (request_of(data=None, parameters={"binary_data_size": 8}), "binary_data_size is 8, but only 0 bytes are left"),
        (b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[NaN]}]}', "not JSON"),
        (b'{"id":3,' + request_of()[1:], "id is 3; a string is needed"),
        (b'{"outputs":{},' + request_of()[1:], "outputs is an object; a list"),
        (b'{"outputs":[{}],' + request_of()[1:], "outputs[0]"),
        (b'{"outputs":[{"name":"y"},{"name":"y"}],' + request_of()[1:], 'output "y" is asked for twice'),
        (b'{"parameters":{"binary_data_output":1},' + request_of()[1:], "parameters.binary_data_output is 1"),
        (b'{"parameters":{"priority":[1]},' + request_of()[1:], "the request: parameters.priority is [1]; a string"),
        (request_of(parameters={"unit": None}), 'input "x": parameters.unit is null; a string, number or boolean'),
        (b'{"outputs":[{"name":"y","parameters":{"a":{}}}],' + request_of()[1:], "parameters.a is an object"),
        (request_of(data=None, parameters={"shared_memory_region": "r"}), "this server allows no shared memory"),
    ],
)
def test_a_wrong_request_is_refused_with_what_is_allowed(body: bytes, says: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        decode_request(body)
    assert says in str(refusal.value)


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ("many", "Inference-Header-Content-Length is 'many'"),
        ("-1", "Inference-Header-Content-Length is '-1'"),
        ("٣", "Inference-Header-Content-Length is"),
        ("9" * 30, "a number of bytes is needed"),
        ("99999", "the body has only"),
    ],
)
def test_a_wrong_header_length_is_refused(header: str, says: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        decode_request(request_of(), header)
    assert says in str(refusal.value)


def binary_request(datatype: str, shape: list[int], blob: bytes, *, size: int | None = None) -> tuple[bytes, str]:
    parameters = {"binary_data_size": len(blob) if size is None else size}
    head = request_of(datatype=datatype, shape=shape, data=None, parameters=parameters)
    return head + blob, str(len(head))


@pytest.mark.parametrize(
    ("tensor", "size", "says"),
    [
        (("FP32", [1, 2], b"1234567"), None, "binary_data_size is 7; FP32 of shape [1, 2] takes 8 bytes"),
        (("FP32", [1, 2], b"1234567"), 8, "binary_data_size is 8, but only 7 bytes are left"),
        (("FP32", [1, 2], b"123456789"), 8, "1 bytes are left after the last binary tensor"),
        (("FP64", [2**31 - 1, 2**31 - 1], b"12345678"), None, "takes 36893488113059364872 bytes"),
        (("BYTES", [1], b"\x05\x00\x00\x00abc"), None, "element 0 is cut short"),
        (("BYTES", [1], b"\x05\x00"), None, "element 0 is cut short"),
        (("BYTES", [2], b"\x01\x00\x00\x00a"), None, "the bytes hold 1 elements; the shape takes 2"),
        (("BYTES", [1], b"\x01\x00\x00\x00\xff"), None, "element 0 is not UTF-8"),
        (("BYTES", [1], b"\xff\xff\xff\xffa"), None, "element 0 is cut short"),
    ],
)
def test_a_wrong_binary_tensor_is_refused_with_its_size(tensor: Any, size: int | None, says: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        decode_request(*binary_request(*tensor, size=size))
    assert says in str(refusal.value)


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        (["y"], 'there is no input "y"; the model takes x: FP32[-1,2]'),
        (["x", "x"], 'input "x" is given twice'),
        (["x", "z"], 'there is no input "z"'),
    ],
)
def test_inputs_that_are_not_the_models_are_refused_by_name(inputs: list[str], says: str) -> None:
    tensor = Tensor("x", "FP32", np.zeros((1, 2), np.float32))
    request_ = InferRequest(tuple(Tensor(name, tensor.datatype, tensor.array) for name in inputs))
    with pytest.raises(InvalidRequest) as refusal:
        bind(decoded(encode_request(request_)), SIGNATURE)
    assert says in str(refusal.value)


def test_a_missing_input_is_named() -> None:
    signature = Signature((*SIGNATURE.inputs, TensorSpec("mask", "BOOL", (-1,))), SIGNATURE.outputs)
    with pytest.raises(InvalidRequest, match='input "mask" is missing'):
        bind(decode_request(request_of()), signature)


def test_a_very_long_name_does_not_fill_the_answer() -> None:
    with pytest.raises(InvalidRequest) as refusal:
        bind(decode_request(request_of(name="n" * 100_000)), SIGNATURE)
    assert len(str(refusal.value)) < 300


def test_outputs_are_chosen_and_made_binary_one_by_one() -> None:
    signature = Signature(SIGNATURE.inputs, (TensorSpec("y", "FP32", (-1,)), TensorSpec("z", "FP32", (-1,))))
    chosen = b'{"outputs":[{"name":"z","parameters":{"binary_data":true}},{"name":"y"}],' + request_of()[1:]
    _, outputs = bind(decode_request(chosen), signature)
    assert outputs == (RequestedOutput("z", True), RequestedOutput("y", False))
    everything = b'{"parameters":{"binary_data_output":true},' + request_of()[1:]
    _, outputs = bind(decode_request(everything), signature)
    assert outputs == (RequestedOutput("y", True), RequestedOutput("z", True))


def test_parameters_are_kept_without_those_that_say_how_tensors_travel() -> None:
    document = json.loads(request_of(data=None, parameters={"binary_data_size": 8, "unit": "mm", "scale": 0.5}))
    document["parameters"] = {"binary_data_output": True, "priority": 1, "trace": False}
    head = json.dumps(document).encode()
    request_ = decode_request(head + b"\0" * 8, str(len(head)))
    assert request_.parameters == {"priority": 1, "trace": False}
    assert request_.inputs[0].parameters == {"unit": "mm", "scale": 0.5}
    assert request_.binary_output


def test_parameters_of_a_response_are_written() -> None:
    tensor = Tensor("y", "FP32", np.zeros(1, np.float32), True, {"unit": "mm"})
    encoded = encode_response(InferResponse("m", "1", (tensor,), parameters={"truncated": True}))
    head = json.loads(bytes(encoded.parts[0]))
    assert head["parameters"] == {"truncated": True}
    assert head["outputs"][0]["parameters"] == {"unit": "mm", "binary_data_size": 4}


def test_json_writes_null_for_what_it_has_no_number_for() -> None:
    tensor = Tensor("y", "FP32", np.array([np.nan, np.inf, 1], dtype=np.float32))
    assert json.loads(encode_response(InferResponse("m", "1", (tensor,))).body)["outputs"][0]["data"] == [None, None, 1]
