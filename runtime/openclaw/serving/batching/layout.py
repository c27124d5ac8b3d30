"""Which requests for a model may share a run: read off its signature, and off the shapes of a request. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from openclaw.execute.session import Array
from openclaw.graph.rows import why_not_rows
from openclaw.graph.signature import Signature, TensorSpec

MASKS = ("attention_mask", "input_mask", "attn_mask")
"""Inputs that by custom are 1 where a sequence has a token and 0 where it is padded."""

SEQUENCE_AXIS = 1

Shape = tuple[tuple[int, ...], ...]


class Form(NamedTuple):
    """What a request looks like to the queue.

    Attributes:
        rows: of its first dimension.
        shape: of one row of every input; those along a sequence stand as -1. Requests of one shape (and length)
            share a run as they are. None: the request shares with no other.
        length: of its sequences; 0 where lengths do not matter.
    """

    rows: int
    shape: Shape | None
    length: int = 0


ALONE = Form(1, None)


@dataclass(frozen=True, slots=True)
class Sequences:
    """Sequences of different lengths may share a run, filled up with zeros.

    Attributes:
        mask: the input that says what is filled up.
        inputs: those that are as long as the mask, which is among them.
        cuts: by output, the axes along which it is as long as its inputs.
    """

    mask: str
    inputs: frozenset[str]
    cuts: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Layout:
    """How the inputs of a model are arranged.

    Attributes:
        inputs: their names, in the signature's order.
        fixed: all dimensions but the first are the signature's, so that all requests have one shape.
        sequences: how different lengths share a run; None: they do not.
    """

    inputs: tuple[str, ...]
    fixed: bool
    sequences: Sequences | None = None

    def form(self, arrays: Mapping[str, Array]) -> Form:
        """The form of a request that fits the signature."""
        shapes = [arrays[name].shape for name in self.inputs]
        rows = shapes[0][0]
        for shape in shapes:
            if shape[0] != rows:
                return ALONE
        if rows == 0:
            return ALONE
        if self.fixed:
            return Form(rows, ())
        if self.sequences is not None:
            length = arrays[self.sequences.mask].shape[SEQUENCE_AXIS]
            if length and self._have_length(shapes, length):
                return Form(rows, (), length)
        return Form(rows, tuple([shape[1:] for shape in shapes]))

    def _have_length(self, shapes: list[tuple[int, ...]], length: int) -> bool:
        assert self.sequences is not None
        return all(
            shape[SEQUENCE_AXIS] == length
            for name, shape in zip(self.inputs, shapes, strict=True)
            if name in self.sequences.inputs
        )


def read_layout(signature: Signature) -> Layout | str:
    """The layout of a model whose requests can be laid one below the other; else why they cannot."""
    if (reason := why_not_rows(signature)) is not None:
        return reason
    fixed = all(-1 not in spec.shape[1:] for spec in signature.inputs)
    return Layout(tuple(spec.name for spec in signature.inputs), fixed)


def find_mask(signature: Signature, mask: str | None) -> str | None:
    """The mask input of a model of sequences, or None where there is none or other dimensions are free as well.

    Args:
        signature: of a model that has a layout.
        mask: its name, where the user gave it.
    """
    names = (mask,) if mask is not None else MASKS
    found = [
        spec.name for spec in signature.inputs if spec.name in names and _is_sequence(spec) and len(spec.shape) == 2
    ]
    others = [spec for spec in signature.inputs if -1 in spec.shape[1:] and not _is_sequence(spec)]
    return found[0] if len(found) == 1 and not others else None


def sequence_inputs(signature: Signature) -> frozenset[str]:
    """The inputs with a sequence along their second dimension."""
    return frozenset(spec.name for spec in signature.inputs if _is_sequence(spec))


def _is_sequence(spec: TensorSpec) -> bool:
    """Whether the second dimension is free, and no later one."""
    return (
        len(spec.shape) > SEQUENCE_AXIS
        and spec.shape[SEQUENCE_AXIS] == -1
        and -1 not in spec.shape[SEQUENCE_AXIS + 1 :]
    )
