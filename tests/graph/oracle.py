"""Holds an optimized model to the original: the same answers from the ONNX project's own reference implementation."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime
from onnx.reference import ReferenceEvaluator

from openclaw.graph import passes

Array = npt.NDArray[np.generic]
Feed = Mapping[str, Array]

RELATIVE = 1e-4
"""What outputs may differ by, relative to themselves, or to a tenth of the largest one beside them.

An output is a sum that can cancel to nearly 0; rounding is relative to what was summed, not to what is left.
"""

FOLDING = (
    "conv-batchnorm",
    "conv-affine",
    "gemm-batchnorm",
    "matmul-add-batchnorm",
    "batchnorm-conv",
    "affine-conv",
    "conv-chain",
)
"""The passes that fold weights into others, which are tested without those that clean up."""

FREE_SIZES: tuple[int, ...] = (1, 3, 0)
"""Sizes that a dimension which the model leaves open is tried with."""


def optimized(
    model: onnx.ModelProto,
    *,
    only: Collection[str] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    final: bool = False,
) -> tuple[onnx.ModelProto, Mapping[str, int]]:
    """The model after the passes, checked by ``onnx.checker``, and how often each rewrote."""
    form = ir.from_proto(model)
    counts = passes.apply(form, only=only, shapes=shapes, final=final)
    after = ir.to_proto(form)
    onnx.checker.check_model(after, full_check=True)
    return after, counts


def assert_lossless(
    model: onnx.ModelProto, *, only: Collection[str] | None = None, feeds: Sequence[Feed] | None = None
) -> tuple[onnx.ModelProto, Mapping[str, int]]:
    """Optimizes a model and asserts that it answers as before, on ``feeds`` or on random ones of several sizes."""
    after, counts = optimized(model, only=only)
    for feed in random_feeds(model) if feeds is None else feeds:
        assert_same_answers(model, after, feed)
    return after, counts


def assert_same_answers(before: onnx.ModelProto, after: onnx.ModelProto, feed: Feed, *, rounding: float = 0.0) -> None:
    """Both models give the same on ``feed``, NaN and infinities too, by every engine that knows ``before``.

    onnxruntime without its own optimizations decides what is right where it runs ``before``; it has no convolutions in
    64 bits. ``onnx.reference`` is asked where it agrees on ``before``: it fails on some empty tensors, lacks defaults
    of ConvTranspose, and reads BatchNormalization of opsets before 14 otherwise. Of operators outside the standard only
    onnxruntime has kernels. ``rounding`` is an absolute difference that does not count: a caller may know how
    large the values on the way are.
    """
    names = [output.name for output in before.graph.output]
    wanted: list[Array] | None = None
    for engine in (run_plainly, run_reference):
        try:
            found = engine(before, feed)
        except Exception:
            continue
        if wanted is None or all(
            _close(one, other, rounding=rounding) for one, other in zip(found, wanted, strict=True)
        ):
            wanted = wanted or found
            if engine is run_reference and any(node.domain for node in after.graph.node):
                continue
            what = [f"output {name!r} by {engine.__name__}" for name in names]
            for name, one, other in zip(what, engine(after, feed), wanted, strict=True):
                assert_close(one, other, name, rounding=rounding)
    if wanted is None:
        raise NoEngineRuns("neither onnxruntime nor the reference implementation runs the original on this input")


class NoEngineRuns(Exception):  # noqa: N818 - it is no error of the model's
    """There is nothing to hold the optimized model to."""


def _close(found: Array, expected: Array, *, rounding: float) -> bool:
    try:
        assert_close(found, expected, "", rounding=rounding)
    except AssertionError:
        return False
    return True


def assert_close(found: Array, expected: Array, what: str, *, rounding: float = 0.0) -> None:
    """Equal within :data:`RELATIVE`, in shape and type too."""
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype), what
    if not np.issubdtype(expected.dtype, np.floating):
        np.testing.assert_array_equal(found, expected, err_msg=what)
        return
    finite = np.abs(expected[np.isfinite(expected)])
    largest = float(finite.max()) if finite.size else 0.0
    np.testing.assert_allclose(
        found, expected, rtol=RELATIVE, atol=max(0.1 * RELATIVE * largest, rounding), equal_nan=True, err_msg=what
    )


def run_reference(model: onnx.ModelProto, feed: Feed) -> list[Array]:
    """The answers of ``onnx.reference``."""
    with np.errstate(all="ignore"):
        return [np.asarray(output) for output in ReferenceEvaluator(model).run(None, dict(feed))]


def run_plainly(model: onnx.ModelProto, feed: Feed) -> list[Array]:
    """The answers of onnxruntime with all of its own optimizations off."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.asarray(output) for output in session.run(None, dict(feed))]


def random_feeds(model: onnx.ModelProto, *, sizes: Sequence[int] = FREE_SIZES) -> Iterator[Feed]:
    """Normal random inputs, with every open dimension at each of ``sizes`` in turn."""
    random = np.random.default_rng(0)
    weights = {weight.name for weight in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    for size in sizes:
        yield {value.name: _random(value, random, size=size) for value in inputs}
        if not any(_is_open(dim) for value in inputs for dim in value.type.tensor_type.shape.dim):
            break


def _is_open(dim: onnx.TensorShapeProto.Dimension) -> bool:
    return not dim.HasField("dim_value")


def _random(value: onnx.ValueInfoProto, random: np.random.Generator, *, size: int) -> Array:
    kind = value.type.tensor_type
    shape = [size if _is_open(dim) else dim.dim_value for dim in kind.shape.dim]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
    if np.issubdtype(dtype, np.floating):
        return np.asarray(random.standard_normal(shape), dtype)
    return np.asarray(random.integers(0, 2 if dtype == np.bool_ else 100, shape), dtype)


def operators(model: onnx.ModelProto) -> list[str]:
    """The operators of the graph, in order; those of nested graphs are left out."""
    return [node.op_type for node in model.graph.node]
