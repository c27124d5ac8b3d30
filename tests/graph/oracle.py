"""Holds an optimized model to the original: the same answers from the ONNX project's own reference implementation."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime
from onnx.reference import ReferenceEvaluator
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from openclaw.graph import passes
from openclaw.inspection.operators import every_node

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
    atol = max(0.1 * RELATIVE * _largest(expected), rounding)
    np.testing.assert_allclose(found, expected, rtol=RELATIVE, atol=atol, equal_nan=True, err_msg=what)


def _largest(array: Array) -> float:
    """The largest of all finite numbers, without its sign."""
    finite = np.abs(array[np.isfinite(array)]) if np.issubdtype(array.dtype, np.floating) else np.zeros(0)
    return float(finite.max()) if finite.size else 0.0


def run_reference(model: onnx.ModelProto, feed: Feed) -> list[Array]:
    """The answers of ``onnx.reference``."""
    with np.errstate(all="ignore"):
        return [np.asarray(output) for output in ReferenceEvaluator(model).run(None, dict(feed))]


def run_plainly(model: onnx.ModelProto, feed: Feed) -> list[Array]:
    """The answers of onnxruntime with all of its own optimizations off."""
    return [np.asarray(output) for output in session_of(model, optimized=False).run(None, dict(feed))]


def assert_served_the_same(
    before: onnx.ModelProto, after: onnx.ModelProto, feeds: Sequence[Feed], *, rounding: float = 0.0
) -> None:
    """``after`` answers as ``before`` where onnxruntime optimizes it too, as it does wherever a model is served.

    A feed that onnxruntime's optimizations already answer otherwise, or not at all, of ``before`` shows nothing; nor
    does any where they do so of ``after``, for a fault of theirs that is known.
    """
    if _loses_zeros(after):
        return
    plain = session_of(before, optimized=False)
    try:
        default, served = session_of(before), session_of(after)
    except (ort_errors.NotImplemented, ort_errors.Fail):
        # Its fusions may make what breaks the rules or has no kernel, as a layer normalization of two types.
        return
    for feed in feeds:
        try:
            wanted, usual = (session.run(None, dict(feed)) for session in (plain, default))
        except Exception:
            continue
        if all(_close(one, other, rounding=rounding) for one, other in zip(usual, wanted, strict=True)):
            found = served.run(None, dict(feed))
            for output, one, other in zip(before.graph.output, found, wanted, strict=True):
                what = f"output {output.name!r} by onnxruntime's default"
                # It rounds otherwise than without: what is looked for here is not in the last digits.
                assert_close(one, other, what, rounding=max(rounding, RELATIVE * _largest(other)))


def _loses_zeros(model: onnx.ModelProto) -> bool:
    """Whether onnxruntime's fusion of paddings makes a Pad with zeros part of a MaxPool, in which no zero can win.

    Seen with 1.31, at the basic level. A form that brings the two together is refused by :func:`openclaw.optimize`,
    which compares answers with these optimizations on.
    """
    padded = {node.output[0] for node in every_node(model.graph) if node.op_type == "Pad"}
    return any(node.op_type == "MaxPool" and node.input[0] in padded for node in every_node(model.graph))


def session_of(model: onnx.ModelProto, *, optimized: bool = True) -> onnxruntime.InferenceSession:
    """A session on one thread, with all of onnxruntime's own optimizations or none."""
    options = onnxruntime.SessionOptions()
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimized else levels.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


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
