"""Memory that is bound to a model for small requests of one shape, and how answers are written from it."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import orjson

from openclaw.execute.bound import Bound
from openclaw.graph.signature import TensorSpec
from openclaw.serving.inference import InferResponse, Tensor
from openclaw.serving.protocol import encode_response
from openclaw.serving.tensors import PLAIN


class BinaryAnswer(NamedTuple):
    """The answer to a request in binary: a JSON header of ``header_length`` bytes, then the tensors."""

    body: bytes
    header_length: int


class Reply(Protocol):
    """Who waits for an answer; each is told one thing, once."""

    def in_json(self, text: bytes) -> None:
        """The answer to a request in JSON."""

    def in_binary(self, answer: BinaryAnswer) -> None:
        """The answer to a request in binary."""

    def pass_on(self) -> None:
        """There is none: the general way is to answer."""


class Waiting(NamedTuple):
    """A request whose input lies in its place."""

    reply: Reply
    binary: bool
    began: float


class Place:
    """Memory for requests of one shape, and what answers to them begin with.

    Attributes:
        shape: of the input.
        rows: of a request.
        nbytes: of a request's input.
        most: requests that may wait here.
        waiting: requests whose inputs lie here, in their order.
        failures: runs that failed.
    """

    __slots__ = (
        "_bound", "_header", "_memory", "_numbers", "_results", "_texts",
        "failures", "most", "nbytes", "rows", "shape", "waiting",
    )  # fmt: skip

    def __init__(
        self,
        bound: Bound,
        spec: TensorSpec,
        *,
        outputs: Sequence[Tensor],
        model: tuple[str, str],
        shape: tuple[int, ...],
    ) -> None:
        """
        Args:
            bound: the memory.
            spec: of the input.
            outputs: of one request.
            model: name and version, for answers.
            shape: of one request's input.
        """
        self._bound = bound
        self._memory = bound.inputs[spec.name].data.cast("B")
        self.shape = shape
        self.rows = shape[0] if shape else 1
        self.most = bound.most
        self.nbytes = len(self._memory) // bound.most
        self.waiting: list[Waiting] = []
        self.failures = 0
        size = bound.inputs[spec.name].size // bound.most
        self._numbers = struct.Struct(f"<{size}{PLAIN[spec.datatype][0]}")
        self._results = [
            [part.reshape(-1) for part in np.split(bound.outputs[output.name], bound.most)]
            if bound.most > 1
            else [bound.outputs[output.name].reshape(-1)]
            for output in outputs
        ]
        self._header = encode_response(InferResponse(*model, tuple(outputs))).parts[0]
        texts = [orjson.dumps({"model_name": model[0], "model_version": model[1]})[:-1] + b',"outputs":[']
        for output in outputs:
            described = {"name": output.name, "datatype": output.datatype, "shape": output.array.shape}
            texts[-1] += orjson.dumps(described)[:-1] + b',"data":'
            texts.append(b"},")
        self._texts = [*texts[:-1], b"}]}"]

    def put_numbers(self, data: Sequence[float]) -> None:
        """Writes the next request's input; raises struct.error or OverflowError for what is not of its datatype."""
        self._numbers.pack_into(self._memory, len(self.waiting) * self.nbytes, *data)

    def put_bytes(self, data: memoryview) -> None:
        """The same from ``nbytes`` bytes."""
        start = len(self.waiting) * self.nbytes
        self._memory[start : start + self.nbytes] = data

    def run(self) -> None:
        """Infers for all that wait; raises what onnxruntime raises."""
        self._bound.runner(len(self.waiting))()

    def answers(self) -> Iterator[bytes | BinaryAnswer]:
        """Of the last run, in the order of those who wait."""
        for number, waiting in enumerate(self.waiting):
            yield self._in_binary(number) if waiting.binary else self._in_json(number)

    def _in_json(self, number: int) -> bytes:
        first, *between, last = self._texts
        text = first + orjson.dumps(self._results[0][number], option=orjson.OPT_SERIALIZE_NUMPY)
        for words, results in zip(between, self._results[1:], strict=True):
            text += words + orjson.dumps(results[number], option=orjson.OPT_SERIALIZE_NUMPY)
        return text + last

    def _in_binary(self, number: int) -> BinaryAnswer:
        parts = (self._header, *(results[number].data for results in self._results))
        return BinaryAnswer(b"".join(parts), len(self._header))
