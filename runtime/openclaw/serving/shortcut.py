"""The shortcut for what nearly every request to a small model is: one tensor of numbers, and all outputs asked for.

The general way of a request (decode, bind, submit, encode) costs more there than the model does. This is the same with
everything left out that such a request does not need, over memory that is bound to the model once for each shape. What
it does not take, it leaves to the general way untouched, which then also finds the words for what is wrong: so it
decides nothing that the general way would decide otherwise.

Where batches were measured to pay, requests of one shape that arrive in the same turn of the event loop share a run at
its end: nobody waits for others to come, and under load a run serves many.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping
from time import perf_counter
from typing import Any

import orjson

from openclaw.errors import RequestError
from openclaw.execute.bound import Bound
from openclaw.execute.session import Array, Model
from openclaw.serving.batching.batcher import Batcher
from openclaw.serving.batching.profile import PAYS_BELOW
from openclaw.serving.inference import InferRequest, Tensor
from openclaw.serving.places import BinaryAnswer, Place, Reply, Waiting
from openclaw.serving.statistics import Statistics
from openclaw.serving.tensors import PLAIN, decode_plain

MAX_BYTES = 16 * 1024
"""Of a body: above that, reading it is what takes the time."""
MAX_ANSWER_BYTES = 64 * 1024
MAX_SHAPES = 16
MOST = 16
"""Requests that share a run: with more, the first would wait too long for the last to be read."""
MAX_HEADERS = 64
MAX_HEADER_BYTES = 1024
_TRIALS = 5
PATIENCE = 8
"""Failures after which a shape is left to the general way: its outputs' shapes depend on its values, it seems."""

_FIELDS = {"name", "datatype", "shape", "data"}
_INTEGERS = {int}
_DIGITS = len(str(MAX_BYTES))


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
        self._places: dict[tuple[int, ...], Place | None] = {}
        self._headers: dict[bytes, Place] = {}

    def take_json(self, body: bytes | bytearray | memoryview, reply: Reply) -> bool:
        """Has a request in JSON answered, now or in this turn of the event loop; False: it is for the general way."""
        began = perf_counter()
        found = self._tensor(body)
        if found is None:
            return False
        shape, data = found
        place = self._places.get(shape) or self._new_place(shape, data)
        # struct would take a bool for a number.
        if place is None or not self._allowed.issuperset(map(type, data)) or not self._batcher.is_quick(place.nbytes):
            return False
        try:
            place.put_numbers(data)
        except (struct.error, OverflowError):
            return False
        return self._enter(place, Waiting(reply, False, began))

    def take_binary(self, body: bytes | bytearray | memoryview, length: bytes, reply: Reply) -> bool:
        """The same in binary, for a request whose header was learnt; ``length``: the text of the header's length."""
        began = perf_counter()
        if len(body) > MAX_BYTES or not length.isdigit() or len(length) > _DIGITS:
            return False
        size = int(length)
        place = self._headers.get(bytes(body[:size]))
        if place is None or len(body) - size != place.nbytes or not self._batcher.is_quick(place.nbytes):
            return False
        place.put_bytes(memoryview(body)[size:])
        return self._enter(place, Waiting(reply, True, began))

    def _shared(self, arrays: Mapping[str, Array], alone: Bound) -> Bound:
        """Memory for as many requests as share a run quickly, if that is cheaper than one after the other."""
        most = min(self._batcher.joins(arrays), MOST)
        try:
            seconds = _quickest(alone)
            while most > 1:
                bound = self._model.bind(arrays, most=most)
                together = _quickest(bound)
                if together < self._batcher.hop and together < PAYS_BELOW * seconds * most:
                    return bound
                most //= 2
        except Exception:  # onnxruntime's have no common base; runs alone find the words
            return alone
        return alone

    def _enter(self, place: Place, request: Waiting) -> bool:
        place.waiting.append(request)
        if len(place.waiting) == place.most:
            return self._run(place)
        if len(place.waiting) == 1:
            asyncio.get_running_loop().call_soon(self._run, place)
        return True

    def _run(self, place: Place) -> bool:
        """Answers those who wait; whether the model could."""
        waiting = place.waiting
        if not waiting:
            return True  # the place was full before the turn was over
        try:
            together = len(waiting)
            ran = self._batcher.run_at_once(
                place.run, rows=place.rows * together, requests=together, nbytes=place.nbytes
            )
        except Exception:  # onnxruntime's have no common base; the general way finds the words
            ran = False
            self._failed(place)
        answers = list(place.answers()) if ran else []
        # Whoever is answered may ask again at once, and has the place to itself then.
        place.waiting = []
        for request, answer in zip(waiting, answers, strict=False):
            self._statistics.answered(perf_counter() - request.began)
            if isinstance(answer, BinaryAnswer):
                request.reply.in_binary(answer)
            else:
                request.reply.in_json(answer)
        if not ran:
            for request in waiting:
                request.reply.pass_on()
        return ran

    def _failed(self, place: Place) -> None:
        place.failures += 1
        if place.failures >= PATIENCE:
            self._places[place.shape] = None
            self._headers = {header: other for header, other in self._headers.items() if other is not place}

    def flush(self) -> None:
        """Answers all that wait."""
        for place in list(self._places.values()):
            if place is not None:
                self._run(place)

    def forget(self) -> None:
        """Has every shape learnt anew, by what was measured meanwhile."""
        self.flush()
        self._places.clear()
        self._headers.clear()

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

    def _tensor(self, body: bytes | bytearray | memoryview) -> tuple[tuple[int, ...], list[Any]] | None:
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

    def _new_place(self, shape: tuple[int, ...], data: list[Any]) -> Place | None:
        array = decode_plain(data, self._spec.datatype, shape)
        return None if array is None or not self._spec.accepts(shape) else self._bind(array)

    def _bind(self, array: Array) -> Place | None:
        """A place for such arrays, if the model is quick with them."""
        shape = array.shape
        if shape in self._places or array.nbytes > MAX_BYTES or not self._batcher.is_quick(array.nbytes):
            return None
        arrays = {self._spec.name: array}
        try:
            alone = self._model.bind(arrays)
        except RequestError:
            return None
        bound = self._shared(arrays, alone)
        most = bound.most
        outputs = [
            Tensor(
                name, self._model.datatypes[name], values[: len(values) // most] if most > 1 else values, binary=True
            )
            for name, values in bound.outputs.items()
        ]
        fits = sum(output.array.nbytes for output in outputs) <= MAX_ANSWER_BYTES
        place = Place(bound, self._spec, outputs=outputs, model=self._named, shape=shape) if fits else None
        if len(self._places) >= MAX_SHAPES:
            self.forget()
        self._places[shape] = place
        return place


def _quickest(bound: Bound) -> float:
    """Seconds of the quickest of a few full runs: others are longer because of what else goes on."""
    run = bound.runner(bound.most)
    taken = []
    for _ in range(_TRIALS):
        began = perf_counter()
        run()
        taken.append(perf_counter() - began)
    return min(taken)


def shortcut_to(model: Model, batcher: Batcher, statistics: Statistics, *, name: str, version: str) -> Shortcut | None:
    """A shortcut to a model with one input, if its tensors are plain numbers."""
    signature = model.signature
    plain = all(spec.datatype in PLAIN for spec in (*signature.inputs, *signature.outputs))
    if len(signature.inputs) != 1 or not plain:
        return None
    return Shortcut(model, batcher, statistics, name=name, version=version)
