"""An inference as every protocol sees it: what was asked and what is answered, without the bytes that carry it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from openclaw.execute.session import Array
from openclaw.serving.sharedmemory import Window

Parameter = str | int | float | bool
Parameters = Mapping[str, Parameter]
"""What a client says beside its tensors, without what says how tensors travel (``binary_data_size`` and the like)."""

NO_PARAMETERS: Parameters = MappingProxyType({})


class Tensor(NamedTuple):
    """A named tensor.

    Attributes:
        array: its values; BF16 as bits, see ``graph.bfloat16``.
        binary: whether it travels as raw bytes.
        region: the shared memory that it is written to instead of being sent.
    """

    name: str
    datatype: str
    array: Array
    binary: bool = False
    parameters: Parameters = NO_PARAMETERS
    region: Window | None = None


class RequestedOutput(NamedTuple):
    """An output that the client asks for: as raw bytes (``binary``), or in its shared memory (``region``)."""

    name: str
    binary: bool
    region: Window | None = None


class InferRequest(NamedTuple):
    """A decoded request: consistent in itself, not yet held against a model."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[RequestedOutput, ...] | None = None
    id: str | None = None
    binary_output: bool = False
    parameters: Parameters = NO_PARAMETERS


class InferResponse(NamedTuple):
    """What is sent back; ``id`` is the request's."""

    model_name: str
    model_version: str
    outputs: tuple[Tensor, ...]
    id: str | None = None
    parameters: Parameters = NO_PARAMETERS
