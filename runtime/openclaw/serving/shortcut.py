"""The shortcut for what nearly every request to a small model is: one tensor of numbers, and all outputs asked for.

The general way of a request (decode, bind, submit, encode) costs more there than the model does. This is the same with
everything left out that such a request does not need, over memory that is bound to the model once for each shape. What
it does not take, it leaves to the general way untouched, which then also finds the words for what is wrong: so it
decides nothing that the general way would decide otherwise.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from time import perf_counter
from typing import Any, NamedTuple

import orjson

from openclaw.errors import RequestError
from openclaw.execute.bound import Bound
from openclaw.execute.session import Array, Model
from openclaw.graph.signature import TensorSpec
from openclaw.serving.batching.batcher import Batcher
from openclaw.serving.inference import InferRequest, InferResponse, Tensor
from openclaw.serving.protocol import encode_response
from openclaw.serving.statistics import Statistics
from openclaw.serving.tensors import PLAIN, decode_plain

MAX_BYTES = 16 * 1024
"""Of a body: above that, reading it is what takes the time."""
MAX_ANSWER_BYTES = 64 * 1024
MAX_SHAPES = 16
MAX_HEADERS = 64
MAX_HEADER_BYTES = 1024
PATIENCE = 8
"""Failures after which a shape is left to the general way: its outputs' shapes depend on its values, it seems."""

_FIELDS = {"name", "datatype", "shape", "data"}
_INTEGERS = {int}
_DIGITS = len(str(MAX_BYTES))


class BinaryAnswer(NamedTuple):
    """The answer to a request in binary: a JSON header of ``header_length`` bytes, then the tensors."""

    body: bytes
    header_length: int


class _Place:
    """Memory bound to the model for requests of one shape, and what answers from it begin with."""

    __slots__ = ("_blobs", "_flat", "_header", "_texts", "failures", "memory", "numbers", "rows", "run", "shape")

    def __init__(self, bound: Bound, spec: TensorSpec, *, outputs: Sequence[Tensor], model: tuple[str, str]) -> None:
        array = bound.inputs[spec.name]
        self.shape = array.shape
        self.rows = array.shape[0] if array.shape else 1
        self.numbers = struct.Struct(f"<{array.size}{PLAIN[spec.datatype][0]}")
        self.memory = array.data.cast("B")
        self.run = bound.run
        self.failures = 0
        self._blobs = [output.array.data.cast("B") for output in outputs]
        self._flat = [output.array.reshape(-1) for output in outputs]
        self._header = encode_response(InferResponse(*model, tuple(outputs))).parts[0]
        texts = [orjson.dumps({"model_name": model[0], "model_version": model[1]})[:-1] + b',"outputs":[']
        for output in outputs:
            described = {"name": output.name, "datatype": output.datatype, "shape": output.array.shape}
            texts[-1] += orjson.dumps(described)[:-1] + b',"data":'
            texts.append(b"},")
        self._texts = [*texts[:-1], b"}]}"]

    def in_json(self) -> bytes:
        """The results of the last run."""
        first, *between, last = self._texts
        text = first + orjson.dumps(self._flat[0], option=orjson.OPT_SERIALIZE_NUMPY)
        for words, flat in zip(between, self._flat[1:], strict=True):
            text += words + orjson.dumps(flat, option=orjson.OPT_SERIALIZE_NUMPY)
        return text + last

    def in_binary(self) -> BinaryAnswer:
        """The results of the last run."""
        return BinaryAnswer(b"".join((self._header, *self._blobs)), len(self._header))


class Shortcut:
    """Answers for one model with one input; used from one event loop."""

    def __init__(self, model: Model, batcher: Batcher, statistics: Statistics, *, name: str, version: str) -> None:
        """
        Args:
            model: one that has a shortcut.
            batcher: that its other requests go to.
            statistics: where an answer is counted.
            name: what answers call the model.
            version: the model's.
        """
        (self._spec,) = model.signature.inputs
        self._model = model
        self._batcher = batcher
        self._statistics = statistics
        self._named = name, version
        self._allowed = PLAIN[self._spec.datatype][1]
        self._places: dict[tuple[int, ...], _Place | None] = {}
        self._headers: dict[bytes, _Place] = {}

    def answer_json(self, body: bytes | bytearray) -> bytes | None:
        """The answer in JSON to a request in JSON; None where it is for the general way."""
        began = perf_counter()
        found = self._tensor(body)
        if found is None:
            return None
        shape, data = found
        place = self._places.get(shape) or self._new_place(shape, data)
        # struct would take a bool for a number.
        if place is None or not self._allowed.issuperset(map(type, data)):
            return None
        try:
            place.numbers.pack_into(place.memory, 0, *data)
        except (struct.error, OverflowError):
            return None
        if not self._run(place):
            return None
        text = place.in_json()
        self._statistics.answered(perf_counter() - began)
        return text

    def answer_binary(self, body: bytes | bytearray, length: bytes) -> BinaryAnswer | None:
        """The same in binary, for a request whose header was learnt; ``length``: the text of the header's length."""
        began = perf_counter()
        if len(body) > MAX_BYTES or not length.isdigit() or len(length) > _DIGITS:
            return None
        size = int(length)
        place = self._headers.get(bytes(body[:size]))
        if place is None or len(body) - size != len(place.memory):
            return None
        place.memory[:] = memoryview(body)[size:]
        if not self._run(place):
            return None
        answer = place.in_binary()
        self._statistics.answered(perf_counter() - began)
        return answer

    def learn(self, header: bytes, request: InferRequest) -> None:
        """Remembers what a JSON header says that was answered the general way."""
        tensor, asked = request.inputs[0], request.outputs
        if len(header) > MAX_HEADER_BYTES or request.id is not None or request.parameters or tensor.parameters:
            return
        if asked is None:
            in_binary = request.binary_output
        else:
            in_binary = all(output.binary and not output.region for output in asked)
            in_binary = in_binary and [output.name for output in asked] == list(self._model.datatypes)
        if not in_binary or not tensor.binary:
            return
        place = self._places.get(tensor.array.shape) or self._bind(tensor.array)
        if place is not None:
            if len(self._headers) >= MAX_HEADERS:
                self._headers.clear()
            self._headers[header] = place

    def _tensor(self, body: bytes | bytearray) -> tuple[tuple[int, ...], list[Any]] | None:
        """Shape and data of a request for the model's input alone, said in the usual way."""
        if len(body) > MAX_BYTES:
            return None
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError:
            return None
        if type(document) is not dict or len(document) != 1:
            return None
        items = document.get("inputs")
        if type(items) is not list or len(items) != 1:
            return None
        item, spec = items[0], self._spec
        if type(item) is not dict or item.keys() != _FIELDS:
            return None
        shape, data = item["shape"], item["data"]
        if item["name"] != spec.name or item["datatype"] != spec.datatype or type(data) is not list:
            return None
        # To Python, 1.0 and True equal 1.
        if type(shape) is not list or not _INTEGERS.issuperset(map(type, shape)):
            return None
        return tuple(shape), data

    def _new_place(self, shape: tuple[int, ...], data: list[Any]) -> _Place | None:
        array = decode_plain(data, self._spec.datatype, shape)
        return None if array is None or not self._spec.accepts(shape) else self._bind(array)

    def _bind(self, array: Array) -> _Place | None:
        """A place for such arrays, if the model is quick with them."""
        shape = array.shape
        if shape in self._places or array.nbytes > MAX_BYTES or not self._batcher.is_quick(array.nbytes):
            return None
        try:
            bound = self._model.bind({self._spec.name: array})
        except RequestError:
            return None
        datatypes = self._model.datatypes
        outputs = [Tensor(name, datatypes[name], values, binary=True) for name, values in bound.outputs.items()]
        fits = sum(output.array.nbytes for output in outputs) <= MAX_ANSWER_BYTES
        place = _Place(bound, self._spec, outputs=outputs, model=self._named) if fits else None
        if len(self._places) >= MAX_SHAPES:
            self._places.clear()
            self._headers.clear()
        self._places[shape] = place
        return place

    def _run(self, place: _Place) -> bool:
        try:
            return self._batcher.run_at_once(place.run, rows=place.rows, nbytes=len(place.memory))
        except Exception:  # onnxruntime's have no common base; the general way finds the words
            place.failures += 1
            if place.failures >= PATIENCE:
                self._places[place.shape] = None
                self._headers = {header: other for header, other in self._headers.items() if other is not place}
            return False


def shortcut_to(model: Model, batcher: Batcher, statistics: Statistics, *, name: str, version: str) -> Shortcut | None:
    """A shortcut to a model with one input, if its tensors are plain numbers."""
    signature = model.signature
    plain = all(spec.datatype in PLAIN for spec in (*signature.inputs, *signature.outputs))
    if len(signature.inputs) != 1 or not plain:
        return None
    return Shortcut(model, batcher, statistics, name=name, version=version)
