"""Arithmetic with sizes of which some are names."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir as ir

Dim = int | ir.SymbolicDim
Dims = tuple[Dim, ...]


def same(left: Dim, right: Dim) -> bool:
    """Whether two dimensions are equal whatever the names stand for."""
    if isinstance(left, int) or isinstance(right, int):
        return isinstance(left, int) and isinstance(right, int) and left == right
    return left == right or left.simplify() == right.simplify()


def same_shape(left: Sequence[Dim], right: Sequence[Dim]) -> bool:
    """Whether two shapes are equal whatever the names stand for."""
    return len(left) == len(right) and all(map(same, left, right))


def reshaped(source: Dims, target: Sequence[Dim], *, allow_zero: bool) -> tuple[Dim | None, ...] | None:
    """What Reshape makes of a shape; None for a dimension that cannot be told, or for the whole where it is unclear."""
    dims: list[Dim | None] = []
    for index, item in enumerate(target):
        if isinstance(item, int) and item == 0 and not allow_zero:
            if index >= len(source):
                return None
            dims.append(source[index])
        else:
            dims.append(None if isinstance(item, int) and item == -1 else item)
    if None in dims:
        rest_in, rest_out = _without_common(source, [dim for dim in dims if dim is not None])
        numbers_in, numbers_out = ([dim for dim in rest if isinstance(dim, int)] for rest in (rest_in, rest_out))
        if len(numbers_in) == len(rest_in) and len(numbers_out) == len(rest_out):
            above, below = math.prod(numbers_in), math.prod(numbers_out)
            if below and above % below == 0:
                dims[dims.index(None)] = above // below
        elif not rest_out:
            product = rest_in[0]
            for dim in rest_in[1:]:
                product = product * dim
            dims[dims.index(None)] = product
    return tuple(dims)


def _without_common(left: Sequence[Dim], right: Sequence[Dim]) -> tuple[list[Dim], list[Dim]]:
    rest_left, rest_right = list(left), []
    for dim in right:
        match = next((i for i, other in enumerate(rest_left) if same(dim, other)), None)
        if match is None:
            rest_right.append(dim)
        else:
            del rest_left[match]
    return [dim for dim in rest_left if dim != 1], [dim for dim in rest_right if dim != 1]


def expanded(dim: Dim, target: Dim) -> Dim | None:
    """What Expand makes of a dimension; None if that depends on what the names stand for."""
    if dim == 1:
        return target
    return dim if target == 1 or isinstance(dim, int) or same(dim, target) else None


def clamped(bound: Dim | None, size: int) -> int:
    """Where a Slice really starts or ends, in an axis of ``size``."""
    position = bound if isinstance(bound, int) else 0
    return min(max(position + size if position < 0 else position, 0), size)
