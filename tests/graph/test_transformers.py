"""Attention, normalization, GELU and embeddings: found in the forms that exporters write, and equal in every case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import pytest

from graph.building import Drawing
from graph.oracle import Feed, assert_close, operators, optimized, run_plainly, run_reference

LENGTH, WIDTH, HEADS = 5, 16, 4
SIZE = WIDTH // HEADS


def assert_same(
    model: onnx.ModelProto, feeds: Sequence[Feed], *, only: Sequence[str] | None = None
) -> tuple[list[str], Mapping[str, int]]:
    """Optimizes, holds the answers to the reference implementation's on the original; the operators and the counts."""
    after, counts = optimized(model, only=only)
    for feed in feeds:
        found = run_plainly(after, feed)
        for name, wanted, got in zip(
            (one.name for one in model.graph.output), run_plainly(model, feed), found, strict=True
        ):
            assert_close(got, wanted, f"output {name!r} by onnxruntime")
        if not any(0 in array.shape for array in feed.values()):
            for wanted, got in zip(run_reference(model, feed), found, strict=True):
                assert_close(got, wanted, "by the reference")
    return operators(after), counts


def linear(draw: Drawing, x: str, width: int = WIDTH, *, into: int = WIDTH, swapped: bool = False) -> str:
    product, bias = draw.add("MatMul", x, draw.weight(width, into)), draw.weight(into)
    return draw.add("Add", bias, product) if swapped else draw.add("Add", product, bias)


def integers(draw: Drawing, *numbers: int) -> str:
    return draw.constant(numbers, np.int64)


def parted(draw: Drawing, x: str, order: Sequence[int] = (0, 2, 1, 3), *, computed: bool = True) -> str:
    """Heads, from a shape that is computed as `x.view(batch, length, heads, size)` is."""
    shape = integers(draw, 0, 0, HEADS, SIZE)
    if computed:
        whole = draw.add("Shape", x)
        leading = [
            draw.add("Unsqueeze", draw.add("Gather", whole, draw.constant(axis, np.int64), axis=0), integers(draw, 0))
            for axis in (0, 1)
        ]
        shape = draw.add("Concat", *leading, integers(draw, HEADS), integers(draw, SIZE), axis=0)
    return draw.add("Transpose", draw.add("Reshape", x, shape), perm=list(order))


def mixed(draw: Drawing, scores: str, values: str) -> str:
    heard = draw.add("MatMul", draw.add("Softmax", scores, axis=-1), values)
    return draw.add("Reshape", draw.add("Transpose", heard, perm=[0, 2, 1, 3]), integers(draw, 0, 0, WIDTH))


def random(*shape: int, scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(sum(shape)).standard_normal(shape) * scale).astype(np.float32)


def masks(batch: int = 3) -> list[np.ndarray]:
    whole = np.ones((batch, LENGTH), np.int64)
    padded = whole.copy()
    padded[1, 2:] = 0
    hidden = padded.copy()
    hidden[2] = 0
    return [whole, padded, hidden]


def encoder(*, low: float = -10_000.0, swapped: bool = False, integer: bool = True) -> onnx.ModelProto:
    """Attention with a padding mask as BERT has it."""
    draw = Drawing()
    x = draw.input("x", ["N", "S", WIDTH])
    mask = draw.input("mask", ["N", "S"], np.int64 if integer else np.float32)
    mask = draw.add("Cast", draw.add("Unsqueeze", mask, integers(draw, 1, 2)), to=onnx.TensorProto.FLOAT)
    added = draw.add("Mul", draw.add("Sub", draw.constant(1.0), mask), draw.constant(low))
    query = parted(draw, linear(draw, x, swapped=swapped))
    key = parted(draw, linear(draw, x, swapped=swapped), (0, 2, 3, 1))
    value = parted(draw, linear(draw, x, swapped=swapped))
    scores = draw.add("Div", draw.add("MatMul", query, key), draw.constant(np.sqrt(SIZE)))
    return draw.model(mixed(draw, draw.add("Add", scores, added), value))


@pytest.mark.parametrize("low", [-10_000.0, float(np.finfo(np.float32).min)])
@pytest.mark.parametrize("swapped", [False, True])
def test_attention_with_a_padding_mask_is_one_operator_also_where_all_is_masked(low: float, swapped: bool) -> None:
    feeds = [{"x": random(3, LENGTH, WIDTH), "mask": mask} for mask in masks()]
    found, _ = assert_same(encoder(low=low, swapped=swapped), feeds)
    assert found.count("Attention") == 1
    assert "Softmax" not in found


def test_a_padding_mask_that_holds_other_numbers_than_zero_and_one_is_added_as_it_is() -> None:
    mask = np.array([[2, 1, 0, -1, 1] + [1] * (LENGTH - 5)])
    found, _ = assert_same(encoder(low=-1.0), [{"x": random(1, LENGTH, WIDTH), "mask": mask}])
    assert "Attention" in found


def test_a_mask_of_reals_is_added_as_it_is() -> None:
    feed = {"x": random(2, LENGTH, WIDTH), "mask": np.abs(random(2, LENGTH))}
    found, _ = assert_same(encoder(low=-1.0, integer=False), [feed])
    assert "Attention" in found
    assert "Expand" in found


def test_attention_of_nothing_stays_attention_of_nothing() -> None:
    feeds = [
        {"x": random(batch, length, WIDTH), "mask": np.ones((batch, length), np.int64)}
        for batch, length in ((0, 3), (2, 0), (1, 1))
    ]
    found, _ = assert_same(encoder(), feeds)
    assert "Attention" in found


@pytest.mark.parametrize("computed", [True, False])
def test_attention_without_a_mask_with_the_scale_on_both_factors_is_one_operator(computed: bool) -> None:
    draw = Drawing()
    x = draw.input("x", ["N", "S", WIDTH])
    root = draw.constant(SIZE**-0.25)
    query, key, value = (parted(draw, linear(draw, x), computed=computed) for _ in range(3))
    turned = draw.add("Mul", draw.add("Transpose", key, perm=[0, 1, 3, 2]), root)
    model = draw.model(mixed(draw, draw.add("MatMul", draw.add("Mul", query, root), turned), value))
    found, _ = assert_same(model, [{"x": random(2, 7, WIDTH)}, {"x": random(1, 1, WIDTH, scale=30.0)}])
    assert found == ["Attention"]


def test_a_divisor_that_is_not_the_root_of_the_size_is_kept() -> None:
    draw = Drawing()
    x = draw.input("x", ["N", "S", WIDTH])
    query, key, value = (parted(draw, linear(draw, x)) for _ in range(3))
    turned = draw.add("Transpose", key, perm=[0, 1, 3, 2])
    model = draw.model(mixed(draw, draw.add("Div", draw.add("MatMul", query, turned), draw.constant(7.0)), value))
    found, _ = assert_same(model, [{"x": random(2, LENGTH, WIDTH)}])
    assert found == ["Attention"]


def test_attention_to_another_tensor_keeps_its_own_projections() -> None:
    draw = Drawing()
    x, memory = draw.input("x", ["N", "S", WIDTH]), draw.input("memory", ["N", "T", WIDTH])
    query = parted(draw, linear(draw, x))
    key, value = (parted(draw, linear(draw, memory), order) for order in ((0, 2, 3, 1), (0, 2, 1, 3)))
    model = draw.model(mixed(draw, draw.add("MatMul", query, key), value))
    found, _ = assert_same(model, [{"x": random(2, 3, WIDTH), "memory": random(2, 6, WIDTH)}])
    assert found.count("MultiHeadAttention") == 1
    assert "Softmax" not in found


@pytest.mark.parametrize("low", [-np.inf, float(np.finfo(np.float32).min)])
@pytest.mark.parametrize("keeps", [True, False])
def test_scores_that_are_chosen_by_a_condition_become_a_mask(low: float, keeps: bool) -> None:
    draw = Drawing()
    x = draw.input("x", ["N", "S", WIDTH])
    seen = draw.input("seen", ["N", 1, "S", "S"], np.bool_)
    query, key, value = (parted(draw, linear(draw, x)) for _ in range(3))
    scores = draw.add("MatMul", query, draw.add("Transpose", key, perm=[0, 1, 3, 2]))
    number = draw.constant(low)
    scores = draw.add("Where", seen, scores, number) if keeps else draw.add("Where", seen, number, scores)
    model = draw.model(mixed(draw, scores, value))
    allowed = np.tri(LENGTH, dtype=bool)[None, None].repeat(2, axis=0)
    empty = allowed.copy()
    empty[1, 0, 2] = False
    feeds = [{"x": random(2, LENGTH, WIDTH), "seen": one if keeps else ~one} for one in (allowed, empty)]
    found, _ = assert_same(model, feeds)
    assert "Attention" in found


def test_a_mask_that_would_widen_the_batch_keeps_attention_apart() -> None:
    draw = Drawing()
    x, mask = draw.input("x", ["N", "S", WIDTH]), draw.input("mask", ["M", 1, 1, "S"])
    query, key, value = (parted(draw, linear(draw, x)) for _ in range(3))
    scores = draw.add("MatMul", query, draw.add("Transpose", key, perm=[0, 1, 3, 2]))
    model = draw.model(mixed(draw, draw.add("Add", scores, mask), value))
    found, _ = assert_same(model, [{"x": random(1, LENGTH, WIDTH), "mask": random(1, 1, 1, LENGTH)}])
    assert "Softmax" in found


def test_probabilities_that_are_an_output_keep_attention_apart() -> None:
    draw = Drawing()
    x = draw.input("x", ["N", "S", WIDTH])
    query, key, value = (parted(draw, linear(draw, x)) for _ in range(3))
    scores = draw.add("MatMul", query, draw.add("Transpose", key, perm=[0, 1, 3, 2]))
    heard = mixed(draw, scores, value)
    seen = next(node.output[0] for node in draw._nodes if node.op_type == "Softmax")
    found, _ = assert_same(draw.model(heard, seen), [{"x": random(2, LENGTH, WIDTH)}])
    assert "Softmax" in found


def normalized(draw: Drawing, x: str, width: int, *, square: str = "Pow", epsilon: float = 1e-5) -> str:
    centered = draw.add("Sub", x, draw.add("ReduceMean", x, axes=[-1]))
    squared = draw.add("Pow", centered, draw.constant(2.0)) if square == "Pow" else draw.add("Mul", centered, centered)
    variance = draw.add("Add", draw.add("ReduceMean", squared, axes=[-1]), draw.constant(epsilon))
    divided = draw.add("Div", centered, draw.add("Sqrt", variance))
    return draw.add("Add", draw.add("Mul", draw.weight(width), divided), draw.weight(width))


@pytest.mark.parametrize("square", ["Pow", "Mul"])
def test_layer_normalization_is_one_operator(square: str) -> None:
    draw = Drawing()
    model = draw.model(normalized(draw, draw.input("x", ["N", "S", WIDTH]), WIDTH, square=square))
    found, _ = assert_same(model, [{"x": random(2, 3, WIDTH)}, {"x": np.zeros((1, 2, WIDTH), np.float32)}])
    assert found == ["LayerNormalization"]


def test_normalization_over_another_axis_or_with_a_wider_scale_stays() -> None:
    draw = Drawing()
    x = draw.input("x", ["N", 4, 4])
    centered = draw.add("Sub", x, draw.add("ReduceMean", x, axes=[1]))
    variance = draw.add("ReduceMean", draw.add("Mul", centered, centered), axes=[1])
    divided = draw.add("Div", centered, draw.add("Sqrt", draw.add("Add", variance, draw.constant(1e-5))))
    model = draw.model(draw.add("Add", draw.add("Mul", divided, draw.weight(4)), draw.weight(4)))
    found, _ = assert_same(model, [{"x": random(2, 4, 4)}])
    assert "LayerNormalization" not in found


SKIP = ("layer-norm", "skip-layer-norm", "dead-code")


def test_a_sum_with_a_bias_is_normalized_at_once_and_handed_on() -> None:
    draw = Drawing()
    x, y = draw.input("x", ["N", "S", WIDTH]), draw.input("y", ["N", "S", WIDTH])
    total = draw.add("Add", draw.add("Add", x, draw.weight(WIDTH)), y)
    result = draw.add("Add", normalized(draw, total, WIDTH), total)
    feeds = [{"x": random(2, 3, WIDTH), "y": random(2, 3, WIDTH, scale=2.0)}]
    found, _ = assert_same(draw.model(result), feeds, only=SKIP)
    assert found == ["SkipLayerNormalization", "Add"]
    # Only where it is asked for: the one operator is slower.
    assert "SkipLayerNormalization" not in assert_same(draw.model(result), feeds)[0]


@pytest.mark.parametrize("sizes", [[1, "S", WIDTH], ["S", WIDTH]])
@pytest.mark.parametrize("first", [True, False])
def test_positions_that_are_added_to_the_whole_batch_are_normalized_with_it(sizes: list[object], first: bool) -> None:
    draw = Drawing()
    x, places = draw.input("x", ["N", "S", WIDTH]), draw.input("places", sizes)
    total = draw.add("Add", *((places, x) if first else (x, draw.add("Add", places, draw.weight(WIDTH)))))
    model = draw.model(draw.add("Add", normalized(draw, total, WIDTH), total))
    shapes = ((2, 3), (1, 1), (3, 0), (0, 2))
    feeds = [
        {"x": random(batch, length, WIDTH), "places": random(*[1] * (len(sizes) - 2), length, WIDTH)}
        for batch, length in shapes
    ]
    found, _ = assert_same(model, feeds, only=SKIP)
    assert found == ["SkipLayerNormalization", "Add"]


def test_a_sum_that_widens_one_of_its_terms_is_not_taken_in() -> None:
    draw = Drawing()
    x, y = draw.input("x", ["N", "S", WIDTH]), draw.input("y", ["N", 1, WIDTH])
    found, _ = assert_same(
        draw.model(normalized(draw, draw.add("Add", x, y), WIDTH)),
        [{"x": random(2, 3, WIDTH), "y": random(2, 1, WIDTH)}],
        only=SKIP,
    )
    assert found == ["Add", "LayerNormalization"]


def gelu_exact(draw: Drawing, x: str) -> str:
    bell = draw.add("Erf", draw.add("Div", x, draw.constant(np.sqrt(2))))
    return draw.add("Mul", draw.add("Mul", x, draw.add("Add", bell, draw.constant(1.0))), draw.constant(0.5))


def gelu_halved_first(draw: Drawing, x: str) -> str:
    bell = draw.add("Add", draw.constant(1.0), draw.add("Erf", draw.add("Mul", x, draw.constant(np.sqrt(0.5)))))
    return draw.add("Mul", draw.add("Mul", draw.constant(0.5), x), bell)


def gelu_tanh(draw: Drawing, x: str) -> str:
    cube = draw.add("Mul", draw.constant(0.044715), draw.add("Pow", x, draw.constant(3.0)))
    inner = draw.add("Mul", draw.constant(np.sqrt(2 / np.pi)), draw.add("Add", x, cube))
    return draw.add(
        "Mul", draw.add("Mul", draw.constant(0.5), x), draw.add("Add", draw.constant(1.0), draw.add("Tanh", inner))
    )


def gelu_tanh_factored(draw: Drawing, x: str) -> str:
    """As GPT-J and Flax have it: x (1 + 0.044715 x x)."""
    square = draw.add("Mul", draw.add("Mul", draw.constant(0.044715), x), x)
    scaled = draw.add("Mul", draw.constant(np.sqrt(2 / np.pi)), x)
    inner = draw.add("Mul", scaled, draw.add("Add", square, draw.constant(1.0)))
    return draw.add(
        "Mul", draw.add("Mul", x, draw.constant(0.5)), draw.add("Add", draw.add("Tanh", inner), draw.constant(1.0))
    )


WIDE = np.array([[[0, -0.0, 1e-30, -9, 9, 30, -30, 1e18, -1e18, np.inf, np.nan, 0.5, -0.5, 2, -2, 3]]], np.float32)


@pytest.mark.parametrize(
    ("write", "operator"),
    [
        (gelu_exact, "BiasGelu"),
        (gelu_halved_first, "BiasGelu"),
        (gelu_tanh, "FastGelu"),
        (gelu_tanh_factored, "FastGelu"),
    ],
)
def test_gelu_is_one_operator_with_its_bias(write: object, operator: str) -> None:
    draw = Drawing()
    x = draw.input("x", ["N", "S", WIDTH])
    assert callable(write)
    model = draw.model(write(draw, draw.add("Add", x, draw.weight(WIDTH))))
    found, _ = assert_same(model, [{"x": random(2, 3, WIDTH, scale=3.0)}, {"x": WIDE}])
    assert found == [operator]


def test_another_curve_than_gelu_stays() -> None:
    draw = Drawing()
    x = draw.input("x", ["N", WIDTH])
    bell = draw.add("Add", draw.add("Erf", draw.add("Div", x, draw.constant(1.5))), draw.constant(1.0))
    model = draw.model(draw.add("Mul", draw.add("Mul", x, bell), draw.constant(0.5)))
    found, _ = assert_same(model, [{"x": random(3, WIDTH)}])
    assert "Erf" in found


def embedding(*, rows: int = 12) -> onnx.ModelProto:
    draw = Drawing()
    ids, kinds = draw.input("ids", ["N", "S"], np.int64), draw.input("kinds", ["N", "S"], np.int64)
    length = draw.add("Gather", draw.add("Shape", ids), draw.constant(1, np.int64), axis=0)
    place = draw.add(
        "Slice",
        draw.weight(1, rows, WIDTH),
        integers(draw, 0),
        draw.add("Unsqueeze", length, integers(draw, 0)),
        integers(draw, 1),
    )
    words = draw.add("Gather", draw.weight(20, WIDTH), ids)
    total = draw.add("Add", draw.add("Add", words, draw.add("Gather", draw.weight(2, WIDTH), kinds)), place)
    return draw.model(normalized(draw, total, WIDTH))


def test_tokens_that_are_counted_from_the_end_stay_what_they_are() -> None:
    feed = {"ids": np.array([[0, -1, -20]]), "kinds": np.array([[-1, 0, -2]])}
    found, _ = assert_same(embedding(), [feed])
    assert "LayerNormalization" in "".join(found)


def test_embeddings_beyond_the_last_position_fail_as_before() -> None:
    model = embedding(rows=4)
    after, _ = optimized(model)
    feed = {"ids": np.zeros((1, 5), np.int64), "kinds": np.zeros((1, 5), np.int64)}
    for form in (model, after):
        with pytest.raises(Exception, match="ONNXRuntimeError"):
            run_plainly(form, feed)
