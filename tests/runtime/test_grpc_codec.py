"""The gRPC codec alone: what is read is what was sent, and whatever is not a request is refused with a reason."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from hypothesis import example, given
from hypothesis import strategies as st
from tritonclient.utils import serialize_byte_tensor

from openclaw.errors import InvalidRequest, RequestError, RequestTooLarge
from openclaw.graph.signature import NUMPY_OF
from openclaw.serving.grpc import codec, wire
from openclaw.serving.grpc import inference_pb2 as pb
from openclaw.serving.grpc.repeats import MAX_KNOWN, Repeats
from openclaw.serving.inference import InferRequest, InferResponse, Tensor
from openclaw.serving.sharedmemory import Regions

FIELD_OF = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
NUMBERS = sorted(NUMPY_OF.keys() - {"BYTES"})


def request(**fields: Any) -> pb.ModelInferRequest:
    return pb.ModelInferRequest(model_name="m", **fields)


def tensor(
    datatype: str = "FP32", shape: tuple[int, ...] = (2,), name: str = "x", **fields: Any
) -> pb.ModelInferRequest.InferInputTensor:
    return pb.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape, **fields)


def contents(**fields: Any) -> pb.InferTensorContents:
    return pb.InferTensorContents(**fields)


def decoded(message: pb.ModelInferRequest, regions: Regions | None = None) -> InferRequest:
    return codec.decode(codec.parse(message.SerializeToString()), regions)


def refusal(message: pb.ModelInferRequest, regions: Regions | None = None) -> str:
    with pytest.raises(InvalidRequest) as caught:
        decoded(message, regions)
    return str(caught.value)


def attempted(message: bytes, regions: Regions | None = None) -> InferRequest | RequestError:
    """What a message is read as, or why not; any other exception is a fault."""
    try:
        return codec.decode(codec.parse(message), regions)
    except RequestError as error:
        return error


# Requests


@given(st.sampled_from(NUMBERS), st.lists(st.integers(0, 5), max_size=4), st.data())
def test_raw_numbers_are_read_as_they_were_sent(datatype: str, sizes: list[int], data: st.DataObject) -> None:
    dtype = NUMPY_OF[datatype]
    count = math.prod(sizes)
    raw = data.draw(st.binary(min_size=count * dtype.itemsize, max_size=count * dtype.itemsize))
    (read,) = decoded(request(inputs=[tensor(datatype, tuple(sizes))], raw_input_contents=[raw])).inputs
    assert (read.name, read.datatype, read.array.shape, read.array.dtype) == ("x", datatype, tuple(sizes), dtype)
    if datatype == "BOOL":
        assert read.array.tobytes() == bytes(byte != 0 for byte in raw)
    else:
        assert read.array.tobytes() == raw


@given(st.lists(st.text(), max_size=5))
def test_strings_are_read_as_they_were_sent(texts: list[str]) -> None:
    raw = serialize_byte_tensor(np.array([text.encode() for text in texts], object))
    data = raw.item() if raw.size else b""
    sent = request(inputs=[tensor("BYTES", (len(texts),))], raw_input_contents=[data])
    assert list(decoded(sent).inputs[0].array) == texts
    typed = contents(bytes_contents=[text.encode() for text in texts])
    assert list(decoded(request(inputs=[tensor("BYTES", (len(texts),), contents=typed)])).inputs[0].array) == texts


def _values_of(datatype: str) -> st.SearchStrategy[Any]:
    dtype = NUMPY_OF[datatype]
    if dtype.kind == "b":
        return st.booleans()
    if dtype.kind == "f":
        return st.floats(width=32 if datatype == "FP32" else 64, allow_nan=True)
    bounds = np.iinfo(dtype.str)
    return st.integers(int(bounds.min), int(bounds.max))


@given(st.data())
def test_typed_numbers_are_read_as_they_were_sent(data: st.DataObject) -> None:
    datatype = data.draw(st.sampled_from(sorted(FIELD_OF.keys() - {"BYTES"})))
    values = data.draw(st.lists(_values_of(datatype), max_size=6))
    sent = tensor(datatype, (len(values), 1), contents=contents(**{FIELD_OF[datatype]: values}))
    read = decoded(request(inputs=[sent])).inputs[0].array
    assert (read.dtype, read.shape) == (NUMPY_OF[datatype], (len(values), 1))
    np.testing.assert_array_equal(read[:, 0], np.array(values, NUMPY_OF[datatype]))


@given(st.integers(1, 40_000), st.integers(0, 3))
@example(40_000, 3)
def test_long_messages_are_read_as_short_ones(count: int, others: int) -> None:
    values = np.arange(count, dtype=np.float32)
    inputs = [tensor("UINT8", (3,), f"other {n}") for n in range(others)] + [tensor("FP32", (count,))]
    raw = [bytes([n, 1, 2]) for n in range(others)] + [values.tobytes()]
    read = decoded(request(inputs=inputs, raw_input_contents=raw, id="an id", model_version="9"))
    assert read.id == "an id"
    assert [each.name for each in read.inputs] == [each.name for each in inputs]
    assert [each.array.tobytes() for each in read.inputs] == raw


def test_the_rest_of_a_request_is_read() -> None:
    parameter = pb.InferParameter
    sent = request(
        model_version="2",
        id="an id",
        parameters={
            "flag": parameter(bool_param=True),
            "number": parameter(int64_param=-1),
            "large": parameter(uint64_param=2**64 - 1),
            "real": parameter(double_param=0.5),
            "text": parameter(string_param="t"),
        },
        inputs=[tensor("INT8", (1,), parameters={"of": parameter(string_param="the tensor")})],
        outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in ("b", "a")],
        raw_input_contents=[b"\x01"],
    )
    envelope = codec.parse(sent.SerializeToString())
    assert (envelope.model, envelope.version) == ("m", "2")
    read = codec.decode(envelope)
    assert read.id == "an id"
    assert read.parameters == {"flag": True, "number": -1, "large": 2**64 - 1, "real": 0.5, "text": "t"}
    assert read.inputs[0].parameters == {"of": "the tensor"}
    assert [output.name for output in read.outputs or ()] == ["b", "a"]


def test_what_is_left_out_is_none() -> None:
    envelope = codec.parse(request(inputs=[tensor("INT8", (1,))], raw_input_contents=[b"\x01"]).SerializeToString())
    assert envelope.version is None
    read = codec.decode(envelope)
    assert (read.id, read.outputs, dict(read.parameters)) == (None, None, {})


REFUSED = [
    (request(), "inputs is empty; at least one tensor is needed"),
    (
        request(inputs=[tensor("INT8", (1,), "")], raw_input_contents=[b"1"]),
        "the name of an input is empty; a name of the model's inputs is needed",
    ),
    (
        request(inputs=[tensor("FP31")], raw_input_contents=[bytes(8)]),
        'input "x": datatype is "FP31"; allowed: BOOL, UINT8, UINT16, UINT32, UINT64, INT8, INT16, INT32, INT64, FP16, '
        "BF16, FP32, FP64, BYTES",
    ),
    (
        request(inputs=[tensor("FP32", (2, -1))], raw_input_contents=[bytes(8)]),
        'input "x": shape [2, -1] holds -1; allowed: 0 to 2147483647',
    ),
    (
        request(inputs=[tensor("FP32", (2**40,))], raw_input_contents=[bytes(8)]),
        'input "x": shape [1099511627776] holds 1099511627776; allowed: 0 to 2147483647',
    ),
    (
        request(inputs=[tensor("FP32", (1,) * 65)], raw_input_contents=[bytes(4)]),
        'input "x": shape has 65 dimensions; at most 64 are allowed',
    ),
    (
        request(inputs=[tensor("FP32", (2**31 - 1,) * 3)], raw_input_contents=[bytes(8)]),
        'input "x": raw_input_contents has 8 bytes; FP32 of shape [2147483647, 2147483647, 2147483647] takes '
        f"{4 * (2**31 - 1) ** 3}",
    ),
    (
        request(inputs=[tensor("FP32", (0, *[2**31 - 1] * 3))], raw_input_contents=[b""]),
        'input "x": shape [0, 2147483647, 2147483647, 2147483647] is too large',
    ),
    (
        request(inputs=[tensor("FP64", (0, *[2**31 - 1] * 3))]),
        'input "x": shape [0, 2147483647, 2147483647, 2147483647] is too large',
    ),
    (
        request(inputs=[tensor("FP32", (2,))], raw_input_contents=[bytes(7)]),
        'input "x": raw_input_contents has 7 bytes; FP32 of shape [2] takes 8',
    ),
    (
        request(inputs=[tensor("INT8", (1,)), tensor("INT8", (1,))], raw_input_contents=[b"1", b"2"]),
        'input "x" is given twice',
    ),
    (
        request(inputs=[tensor("INT8", (1,)), tensor("INT8", (1,), "y")], raw_input_contents=[b"1"]),
        'input "y" has no raw_input_contents, while inputs before it have',
    ),
    (
        request(inputs=[tensor("INT8", (1,))], raw_input_contents=[b"1", b"2", b"3"]),
        "raw_input_contents has 3 tensors, 2 more than there are inputs for",
    ),
    (
        request(inputs=[tensor("INT8", (1,), contents=contents(int_contents=[1]))], raw_input_contents=[b"1"]),
        'input "x" has contents beside raw_input_contents; give a request\'s tensors in one way',
    ),
    (request(inputs=[tensor("FP32", (2,))]), 'input "x": fp32_contents has 0 values; shape [2] takes 2'),
    (
        request(inputs=[tensor("FP32", (2,), contents=contents(fp32_contents=[1]))]),
        'input "x": fp32_contents has 1 values; shape [2] takes 2',
    ),
    (
        request(inputs=[tensor("FP32", (1,), contents=contents(fp64_contents=[1]))]),
        'input "x": contents has fp64_contents; FP32 takes fp32_contents',
    ),
    (
        request(inputs=[tensor("FP32", (1,), contents=contents(fp32_contents=[1], bool_contents=[True]))]),
        'input "x": contents has bool_contents; FP32 takes fp32_contents',
    ),
    (
        request(inputs=[tensor("INT8", (2,), contents=contents(int_contents=[1, 128]))]),
        'input "x": int_contents holds 128; INT8 takes -128 to 127',
    ),
    (
        request(inputs=[tensor("INT16", (2,), contents=contents(int_contents=[-32769, 1]))]),
        'input "x": int_contents holds -32769; INT16 takes -32768 to 32767',
    ),
    (
        request(inputs=[tensor("UINT16", (1,), contents=contents(uint_contents=[65536]))]),
        'input "x": uint_contents holds 65536; UINT16 takes 0 to 65535',
    ),
    (
        request(inputs=[tensor("FP16", (1,), contents=contents(fp32_contents=[1]))]),
        'input "x": FP16 has no field in contents; send it in raw_input_contents',
    ),
    (
        request(inputs=[tensor("BYTES", (1,), contents=contents(bytes_contents=[b"\xff"]))]),
        'input "x": element 0 is not UTF-8: invalid start byte',
    ),
    (
        request(inputs=[tensor("INT8", (1,))], raw_input_contents=[b"1"], parameters={"p": pb.InferParameter()}),
        'the request: parameter "p" has no value',
    ),
    (
        request(
            inputs=[tensor("INT8", (1,))],
            raw_input_contents=[b"1"],
            outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name="y")] * 2,
        ),
        'output "y" is asked for twice',
    ),
    (
        request(
            inputs=[tensor("INT8", (1,))],
            raw_input_contents=[b"1"],
            outputs=[
                pb.ModelInferRequest.InferRequestedOutputTensor(
                    name="y", parameters={"classification": pb.InferParameter(int64_param=3)}
                )
            ],
        ),
        'output "y": the classification extension is not supported',
    ),
    (
        request(inputs=[tensor(parameters={"shared_memory_region": pb.InferParameter(string_param="r")})]),
        'input "x": shared memory is not allowed by this server; send the tensor',
    ),
]


@pytest.mark.parametrize(("message", "sentence"), REFUSED, ids=[sentence for _, sentence in REFUSED])
def test_a_request_that_lies_is_refused_with_what_is_allowed(message: pb.ModelInferRequest, sentence: str) -> None:
    assert refusal(message) == sentence


def test_shared_memory_of_a_region_that_is_not_there_is_refused() -> None:
    regions = Regions(max_bytes=1000)
    lost = tensor(parameters={"shared_memory_region": pb.InferParameter(string_param="r")})
    assert 'there is no shared memory region "r"' in refusal(request(inputs=[lost]), regions)
    mistyped = tensor(parameters={"shared_memory_byte_size": pb.InferParameter(int64_param=8)})
    assert "shared_memory_region is missing" in refusal(request(inputs=[mistyped]), regions)


# Fuzzing


@st.composite
def _tensors(draw: st.DrawFn) -> pb.ModelInferRequest.InferInputTensor:
    given_contents = draw(
        st.none()
        | st.builds(
            pb.InferTensorContents,
            bool_contents=st.lists(st.booleans(), max_size=3),
            int_contents=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3),
            uint_contents=st.lists(st.integers(0, 2**32 - 1), max_size=3),
            fp32_contents=st.lists(st.floats(width=32), max_size=3),
            bytes_contents=st.lists(st.binary(max_size=4), max_size=3),
        )
        | st.builds(pb.InferTensorContents, bytes_contents=st.lists(st.binary(max_size=4), max_size=3))
    )
    return pb.ModelInferRequest.InferInputTensor(
        name=draw(st.sampled_from(["x", "y", ""]) | st.text(max_size=3)),
        datatype=draw(st.sampled_from([*NUMPY_OF, "FP8", ""])),
        shape=draw(st.lists(st.integers(0, 4) | st.integers(-(2**63), 2**63 - 1), max_size=4)),
        contents=given_contents,
        parameters=draw(st.dictionaries(st.sampled_from(["shared_memory_region", "p"]), _parameters(), max_size=1)),
    )


def _parameters() -> st.SearchStrategy[pb.InferParameter]:
    return st.builds(pb.InferParameter, string_param=st.text(max_size=2)) | st.builds(pb.InferParameter)


@given(
    st.lists(_tensors(), max_size=3),
    st.lists(st.binary(max_size=40), max_size=4),
    st.lists(st.text(max_size=2), max_size=2),
    st.booleans(),
)
def test_any_request_is_read_consistently_or_refused(
    inputs: list[pb.ModelInferRequest.InferInputTensor], raw: list[bytes], outputs: list[str], memory: bool
) -> None:
    wanted = [pb.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in outputs]
    message = request(inputs=inputs, raw_input_contents=raw, outputs=wanted)
    read = attempted(message.SerializeToString(), Regions(max_bytes=100) if memory else None)
    if isinstance(read, RequestError):
        assert read.status in (400, 413)
        assert len(str(read)) < 1000
        return
    assert len(read.inputs) == len(inputs)
    for tensor_read, sent in zip(read.inputs, inputs, strict=True):
        assert tensor_read.array.shape == tuple(sent.shape)
        assert tensor_read.array.dtype == NUMPY_OF[sent.datatype]
        assert tensor_read.array.nbytes <= 8 * (message.ByteSize() + 1)


@given(st.integers(0, 6), st.binary(max_size=60))
@example(2, b"\xff\xff\xff\xff")
@example(1, b"\x01\x00\x00\x00\xff")
def test_any_bytes_of_strings_are_those_of_the_client_library_or_refused(count: int, raw: bytes) -> None:
    sent = request(inputs=[tensor("BYTES", (count,))], raw_input_contents=[raw])
    read = attempted(sent.SerializeToString())
    if isinstance(read, RequestError):
        assert read.status == 400
        return
    written = serialize_byte_tensor(np.array([text.encode() for text in read.inputs[0].array], object))
    assert (written.item() if written.size else b"") == raw


@given(st.binary(max_size=200) | st.binary(min_size=20_000, max_size=20_100))
@example(b"\x3a" * 20_001)
@example(b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01" + bytes(20_000))
@example(b"\x3a\x05" + bytes(20_000))
def test_any_bytes_are_a_request_or_refused(message: bytes) -> None:
    assert codec.is_long(message) in (False, True)
    read = attempted(message)
    assert isinstance(read, InferRequest) or read.status == 400


@given(st.integers(0, 20_300), st.integers(0, 255))
def test_a_request_with_a_wrong_byte_is_read_or_refused(position: int, byte: int) -> None:
    whole = bytearray(
        request(
            inputs=[tensor("UINT8", (20_000,)), tensor("BYTES", (2,), "s"), tensor("INT64", (2,), "i")],
            raw_input_contents=[bytes(20_000), b"\x01\x00\x00\x00a\x00\x00\x00\x00", bytes(16)],
        ).SerializeToString()
    )
    whole[position % len(whole)] = byte
    read = attempted(bytes(whole))
    if isinstance(read, RequestError):
        assert read.status == 400
    else:
        assert sum(each.array.nbytes for each in read.inputs) < 2 * len(whole)


# The wire


@given(
    st.lists(st.binary(max_size=300), max_size=4),
    st.text(max_size=20),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4),
    st.sampled_from([b"", b"\x09" + bytes(8), b"\x0d" + bytes(4), b"\x80\x01\x7f", b"\x9a\x3f\x01z"]),
)
def test_cutting_and_joining_are_what_a_parser_does(
    raw: list[bytes], text: str, shape: list[int], unknown: bytes
) -> None:
    head = request(id=text, inputs=[tensor(shape=tuple(shape))])
    joined = wire.join(head.SerializeToString(), raw, field=7) + unknown
    parsed = pb.ModelInferRequest.FromString(joined)
    assert list(parsed.raw_input_contents) == raw
    cut = wire.split(joined, 7)
    assert cut is not None
    rest, values = cut
    assert [bytes(value) for value in values] == raw
    assert rest == head.SerializeToString() + unknown


# Answers


@given(st.data())
def test_the_client_library_reads_what_is_answered(data: st.DataObject) -> None:
    datatype = data.draw(st.sampled_from(sorted(NUMPY_OF.keys() - {"BF16"})))
    shape = tuple(data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=3)))
    count = math.prod(shape)
    if datatype == "BYTES":
        array = np.array(data.draw(st.lists(st.text(), min_size=count, max_size=count)), object).reshape(shape)
    else:
        values = st.floats(width=16) if datatype == "FP16" else _values_of(datatype)
        drawn = data.draw(st.lists(values, min_size=count, max_size=count))
        array = np.array(drawn, NUMPY_OF[datatype]).reshape(shape)
    if data.draw(st.booleans()):
        array = array[..., ::-1]
    identity = data.draw(st.none() | st.text(max_size=5))
    first = Tensor("first", "UINT8", np.array([7], np.uint8), True)
    answer = InferResponse("m", "4", (first, Tensor("y", datatype, array, True)), identity)
    read = triton.InferResult(triton.service_pb2.ModelInferResponse.FromString(codec.encode(answer)))
    response = read.get_response()
    assert (response.model_name, response.model_version, response.id) == ("m", "4", identity or "")
    assert read.as_numpy("first").tolist() == [7]
    if datatype == "BYTES":
        assert [item.decode() for item in read.as_numpy("y").flat] == list(array.flat)
    else:
        np.testing.assert_array_equal(read.as_numpy("y"), array)


def test_parameters_are_answered() -> None:
    answer = InferResponse(
        "m",
        "1",
        (Tensor("y", "INT8", np.array([1], np.int8), True, {"a": 1.5, "b": "text"}),),
        "an id",
        {"flag": True, "number": -5, "large": 2**64 - 1},
    )
    read = pb.ModelInferResponse.FromString(codec.encode(answer))
    assert read.id == "an id"
    assert read.parameters["flag"].bool_param
    assert read.parameters["number"].int64_param == -5
    assert read.parameters["large"].uint64_param == 2**64 - 1
    assert read.outputs[0].parameters["a"].double_param == 1.5
    assert read.outputs[0].parameters["b"].string_param == "text"
    assert read.raw_output_contents == [b"\x01"]


def test_only_what_takes_time_is_long() -> None:
    image = request(inputs=[tensor("FP32", (100_000,))], raw_input_contents=[bytes(400_000)])
    assert not codec.is_long(image.SerializeToString())
    typed = request(inputs=[tensor("FP32", (100_000,), contents=contents(fp32_contents=[1.0] * 100_000))])
    assert codec.is_long(typed.SerializeToString())
    strings = request(inputs=[tensor("BYTES", (100_000,))], raw_input_contents=[bytes(400_000)])
    assert codec.is_long(strings.SerializeToString())
    assert not codec.is_long(request(inputs=[tensor("BYTES", (1,))], raw_input_contents=[bytes(4)]).SerializeToString())


# Requests that repeat others


def learned(*messages: bytes) -> Repeats:
    repeats = Repeats()
    for message in messages:
        envelope = codec.parse(message)
        repeats.learn(message, model=envelope.model, version=envelope.version, request=codec.decode(envelope))
    return repeats


def assert_same(read: tuple[str, str | None, InferRequest], message: bytes) -> None:
    """What was read from a repeated message is what the codec reads."""
    envelope = codec.parse(message)
    model, version, repeated = read
    whole = codec.decode(envelope)
    assert (model, version) == (envelope.model, envelope.version)
    assert repeated._replace(inputs=()) == whole._replace(inputs=())
    (one,), (other,) = repeated.inputs, whole.inputs
    assert one._replace(array=None) == other._replace(array=None)  # type: ignore[arg-type]
    assert (one.array.dtype, one.array.shape, one.array.tobytes()) == (
        other.array.dtype,
        other.array.shape,
        other.array.tobytes(),
    )
    assert one.array.flags.aligned


@given(st.sampled_from(sorted(set(NUMBERS) - {"BOOL"})), st.integers(1, 20), st.text(max_size=3), st.data())
def test_a_message_with_other_numbers_repeats_the_first(
    datatype: str, count: int, version: str, data: st.DataObject
) -> None:
    size = count * NUMPY_OF[datatype].itemsize
    name = data.draw(st.text(min_size=1, max_size=9))
    sent = request(inputs=[tensor(datatype, (count,), name)], raw_input_contents=[bytes(size)], model_version=version)
    repeats = learned(sent.SerializeToString())
    sent.raw_input_contents[0] = data.draw(st.binary(min_size=size, max_size=size))
    message = sent.SerializeToString()
    read = repeats.read(message)
    assert read is not None
    assert_same(read, message)


@given(st.integers(0, 500), st.binary(min_size=1, max_size=4))
def test_a_message_with_other_bytes_anywhere_is_read_the_same_or_not_at_all(position: int, others: bytes) -> None:
    sent = request(inputs=[tensor("INT16", (5, 2))], raw_input_contents=[bytes(20)]).SerializeToString()
    at = position % len(sent)
    changed = (sent[:at] + others + sent[at + len(others) :])[: len(sent)]
    read = learned(sent).read(changed)
    if read is not None:
        assert_same(read, changed)
    assert learned(sent).read(sent + others) is None
    assert learned(sent).read(others) is None


def _other_fields() -> list[pb.ModelInferRequest]:
    one = {"inputs": [tensor("INT8", (4,))], "raw_input_contents": [b"\x3a\x01\x3a\x01"]}
    parameter = {"p": pb.InferParameter(int64_param=1)}
    return [
        request(**one, id="an id"),
        request(**one, parameters=parameter),
        request(**one, outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name="y")]),
        request(inputs=[tensor("INT8", (4,), parameters=parameter)], raw_input_contents=[b"1234"]),
        request(inputs=[tensor("BOOL", (4,))], raw_input_contents=[b"\x02\x02\x02\x02"]),
        request(inputs=[tensor("INT8", (0,))], raw_input_contents=[b""]),
        request(inputs=[tensor("BYTES", (1,))], raw_input_contents=[bytes(4)]),
        request(inputs=[tensor("INT8", (1,), contents=contents(int_contents=[1]))]),
        request(inputs=[tensor("INT8", (1,)), tensor("INT8", (1,), "y")], raw_input_contents=[b"1", b"2"]),
        request(inputs=[tensor("INT8", (codec.LONG,))], raw_input_contents=[bytes(codec.LONG)]),
    ]


@pytest.mark.parametrize("message", _other_fields())
def test_a_message_that_says_more_is_never_taken_for_a_repetition(message: pb.ModelInferRequest) -> None:
    serialized = message.SerializeToString()
    assert learned(serialized).read(serialized) is None


def test_a_message_whose_tensor_is_not_last_is_never_taken_for_a_repetition() -> None:
    serialized = request(inputs=[tensor("INT8", (2,))], raw_input_contents=[b"12"]).SerializeToString()
    unknown = b"\x9a\x3f\x04\x3a\x0212"
    long_length = serialized.replace(b"\x3a\x02", b"\x3a\x82\x00")
    assert codec.decode(codec.parse(long_length)).inputs[0].array.tolist() == [49, 50]
    for other in (serialized + unknown, long_length):
        assert learned(other).read(other) is None


def test_no_more_than_so_many_messages_are_remembered() -> None:
    messages = [
        request(inputs=[tensor("INT8", (size,))], raw_input_contents=[bytes(size)]).SerializeToString()
        for size in range(1, 3 * MAX_KNOWN)
    ]
    repeats = learned(*messages)
    known = [message for message in messages if repeats.read(message) is not None]
    assert 0 < len(known) <= MAX_KNOWN
    assert messages[-1] in known


def test_a_long_message_that_is_cut_short_is_refused() -> None:
    whole = request(inputs=[tensor("UINT8", (19_000,))], raw_input_contents=[bytes(20_000)]).SerializeToString()
    assert isinstance(attempted(whole[:-1000]), RequestError)
    assert "the message is not a ModelInferRequest" in str(attempted(whole[:-1000]))


def test_an_answer_that_no_message_can_hold_is_refused_before_it_is_written() -> None:
    rows = np.broadcast_to(np.zeros(1, np.float64), (2**27, 3))
    with pytest.raises(RequestTooLarge, match="the answer has 3221225472 bytes"):
        codec.encode(InferResponse("m", "1", (Tensor("y", "FP64", rows, True),)))
