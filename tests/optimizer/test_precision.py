"""Recipes that lower precision: what they make of small models, and what they refuse."""

import dataclasses
import io
import logging
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from openclaw.errors import NotApplicable
from openclaw.optimizer.model.contents import portable
from openclaw.optimizer.precision import RECIPES, elsewhere
from openclaw.optimizer.recipe import Judge, Made, Material
from optimizer.small_models import (
    VNNI,
    Drawing,
    convolutional,
    difference,
    feeds_of,
    material,
    operators,
    perceptron,
    run,
    transformer,
)

BY_NAME = {recipe.name: recipe for recipe in RECIPES}
STATIC = ("int8-static-minmax", "int8-static-percentile", "int8-static-entropy")
MATRICES = ("int8-dynamic", "int8-matrices")
SEVERAL_LAYERS = {
    "int8-static-minmax": convolutional,
    "int8-matrices": perceptron,
    "int8-dynamic": perceptron,
    "int4-weights": transformer,
}


def made(name: str, given: Material, judge: Judge = lambda form: 0.0) -> Made:
    return BY_NAME[name].make(given, judge)


def strict(given: Material, *, allowed: float) -> Judge:
    """Judges by the share of the answers' energy that a form may lose."""
    return lambda form: difference(given.exported, form, given.calibration) / allowed


@pytest.mark.parametrize("name", STATIC)
def test_convolutions_become_8_bit_and_answer_almost_the_same(name: str, tmp_path: Path) -> None:
    model = convolutional()
    form = made(name, material(model, tmp_path)).model
    onnx.checker.check_model(form)
    assert operators(form).count("DequantizeLinear") >= 8
    assert difference(model, form, feeds_of(model, seed=1)) < 0.01
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("instructions", "largest"), [(VNNI, 127), (frozenset({"avx2"}), 64)])
@pytest.mark.parametrize("name", STATIC)
def test_weights_have_7_bits_where_the_cpu_adds_products_in_16(
    name: str, instructions: frozenset[str], largest: int, tmp_path: Path
) -> None:
    model = convolutional()
    form = made(name, material(model, tmp_path, instructions=instructions)).model
    weights = [
        numpy_helper.to_array(tensor).astype(int)
        for tensor in form.graph.initializer
        if tensor.data_type == TensorProto.INT8 and len(tensor.dims) > 1
    ]
    assert weights
    assert max(int(np.abs(each).max()) for each in weights) == largest
    assert difference(model, form, feeds_of(model, seed=1)) < 0.01


def test_the_user_sees_nothing_of_what_the_library_prints_and_logs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    printed = io.StringIO()
    handlers = list(logging.getLogger().handlers)
    with redirect_stdout(printed):
        made("int8-static-entropy", material(convolutional(), tmp_path))
        made("int4-weights", material(perceptron(), tmp_path))
    assert printed.getvalue() == ""
    assert not caplog.records
    assert logging.getLogger().handlers == handlers


@pytest.mark.parametrize("name", ["int8-static-minmax", *MATRICES, "int8-weights"])
def test_the_model_that_was_given_stays_as_it_is(name: str, tmp_path: Path) -> None:
    model = convolutional() if name.startswith("int8-static") else perceptron()
    before = model.SerializeToString()
    made(name, material(model, tmp_path))
    assert model.SerializeToString() == before


@pytest.mark.parametrize("name", [*MATRICES, "int8-weights"])
def test_products_become_8_bit_and_answer_almost_the_same(name: str, tmp_path: Path) -> None:
    model = perceptron()
    form = made(name, material(model, tmp_path)).model
    assert "MatMul" not in operators(form)
    assert difference(model, form, feeds_of(model, seed=1)) < 1e-3


@pytest.mark.parametrize("name", MATRICES)
def test_a_transformer_layer_is_lowered_whole(name: str, tmp_path: Path) -> None:
    model = transformer()
    form = made(name, material(model, tmp_path)).model
    kinds = operators(form)
    assert "QAttention" in kinds
    assert not {"MatMul", "Attention", "SkipLayerNormalization", "EmbedLayerNormalization", "Add"} & {
        node.op_type for node in form.graph.node if node.op_type != "Add" or node.input[1].startswith("c")
    }
    assert difference(model, form, feeds_of(model, seed=1)) < 0.01
    assert form.ByteSize() < 0.34 * model.ByteSize()


PAIRED = ("int8-matrices-openvino", "int8-matrices-smooth-openvino")


@pytest.fixture
def with_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if OpenVINO were installed; what is made for it every engine runs."""
    monkeypatch.setattr(elsewhere, "installed", lambda: ("onnxruntime", "openvino"))


@pytest.mark.usefixtures("with_openvino")
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("name", PAIRED)
def test_products_for_openvino_stand_between_pairs_that_every_engine_knows(
    name: str, signed: bool, tmp_path: Path
) -> None:
    model = perceptron()
    given = material(model, tmp_path, instructions=frozenset({"neon", "dotprod"}) if signed else VNNI)
    if "smooth" in name:
        # One column stands out, or smoothing would not pay.
        given = dataclasses.replace(given, calibration=[{"x": feed["x"] * outlying()} for feed in given.calibration])
    form = made(name, given).model
    kinds = operators(form)
    assert portable(form)
    assert kinds.count("QuantizeLinear") == kinds.count("MatMul") == 2
    assert kinds.count("DequantizeLinear") == 4
    assert ("Mul" in kinds) == ("smooth" in name)
    assert properties_of(form) == {"openclaw.engine": "openvino"}
    assert difference(model, form, given.calibration) < 1e-3
    assert form.ByteSize() < 0.5 * model.ByteSize()


def outlying() -> np.ndarray:
    scale = np.ones(64, np.float32)
    scale[5] = 200
    return scale


@pytest.mark.usefixtures("with_openvino")
def test_layers_for_openvino_go_back_to_float_until_the_budget_holds(tmp_path: Path) -> None:
    given = material(perceptron(), tmp_path)
    whole = difference(given.exported, made(PAIRED[0], given).model, given.calibration)
    form = made(PAIRED[0], material(perceptron(), tmp_path), strict(given, allowed=whole * 0.9))
    assert len(form.notes["float layers"]) == 1
    assert properties_of(form.model) == {"openclaw.engine": "openvino"}


def test_what_openvino_does_not_know_or_is_not_there_for_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elsewhere, "installed", lambda: ("onnxruntime",))
    with pytest.raises(NotApplicable, match=r"pip install 'openclaw\[openvino\]'"):
        made(PAIRED[0], material(perceptron(), tmp_path))
    monkeypatch.setattr(elsewhere, "installed", lambda: ("onnxruntime", "openvino"))
    with pytest.raises(NotApplicable, match="has operators of onnxruntime's own"):
        made(PAIRED[0], material(transformer(), tmp_path))


def test_recipes_of_one_optimization_share_what_they_observed(tmp_path: Path) -> None:
    given = material(perceptron(), tmp_path)
    assert not given.shared
    first = made("int8-matrices", given).model
    kept = dict(given.shared)
    assert made("int8-matrices", given).model == first
    assert given.shared.keys() == kept.keys()


def test_parts_of_a_fused_transformer_stay_apart_where_shapes_are_known(tmp_path: Path) -> None:
    import onnxruntime

    model = transformer()
    for size, dim in zip((2, 12), model.graph.input[0].type.tensor_type.shape.dim, strict=True):
        dim.dim_value = size
    form = made("int8-matrices", material(model, tmp_path)).model
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(form.SerializeToString(), options, providers=["CPUExecutionProvider"])
    assert "SkipLayerNormalization" not in operators(onnx.load(tmp_path / "loaded.onnx"))


@pytest.mark.parametrize(
    ("axes", "lowered"), [([1], True), ([0, 1], True), ([-2], True), (None, True), ([2], False), ([1, -1], False)]
)
def test_a_table_of_which_whole_rows_are_sliced_has_8_bits(
    axes: list[int] | None, lowered: bool, tmp_path: Path
) -> None:
    draw = Drawing()
    places = draw.weight(1, 1024, 64, gain=10)
    bounds = [draw.constant(np.full(len(axes or [0]), number)) for number in (0, 64)]
    rows = draw.node("Slice", places, *bounds, *([draw.constant(np.array(axes))] if axes else []))
    first = draw.node("Slice", rows, *(draw.constant(np.array([number])) for number in (0, 12, 1)))
    x = draw.node("Add", draw.node("MatMul", "x", draw.weight(64, 64)), first)
    draw.node("Identity", x, output="y")
    model = draw.model({"x": ["N", 12, 64]})
    form = made("int8-matrices", material(model, tmp_path)).model
    kinds = {tensor.data_type for tensor in form.graph.initializer if list(tensor.dims) == [1, 1024, 64]}
    assert kinds == {TensorProto.INT8 if lowered else TensorProto.FLOAT}
    assert difference(model, form, feeds_of(model, seed=1)) < 1e-3


def test_smoothing_loses_less_where_a_column_stands_out(tmp_path: Path) -> None:
    draw = Drawing()
    scale = np.ones(64, np.float32)
    scale[5] = 200
    shrunk = draw.random.standard_normal((64, 64)).astype(np.float32)
    shrunk[5] /= 200
    x = draw.node("Mul", "x", draw.constant(scale))
    draw.node("MatMul", x, draw.constant(shrunk), output="y")
    model = draw.model({"x": ["N", 64]})
    given, fresh = material(model, tmp_path), feeds_of(model, seed=1)
    plain = difference(model, made("int8-matrices", given).model, fresh)
    smooth = made("int8-matrices-smooth", given)
    assert smooth.notes["smoothed layers"]
    assert difference(model, smooth.model, fresh) < 0.1 * plain


def test_inputs_are_smoothed_only_if_the_budget_asks_for_it(tmp_path: Path) -> None:
    given = material(transformer(), tmp_path)
    assert made("int8-matrices", given).notes["smoothed layers"] == []


@pytest.mark.parametrize("name", SEVERAL_LAYERS)
def test_layers_go_back_to_float_until_the_budget_holds(name: str, tmp_path: Path) -> None:
    model = SEVERAL_LAYERS[name]()
    given = material(model, tmp_path)
    whole = difference(model, made(name, given).model, given.calibration)
    result = made(name, given, strict(given, allowed=whole * 0.8))
    assert result.notes["float layers"]
    assert len(result.notes["float layers"]) < result.notes["layers"]
    assert difference(model, result.model, given.calibration) <= whole * 0.8


@pytest.mark.parametrize("name", SEVERAL_LAYERS)
def test_a_budget_that_cannot_hold_is_refused(name: str, tmp_path: Path) -> None:
    model = SEVERAL_LAYERS[name]()
    with pytest.raises(NotApplicable, match="accuracy budget"):
        made(name, material(model, tmp_path), lambda form: 5.0)


@pytest.mark.parametrize("name", [*STATIC, *MATRICES, "int8-weights", "int4-weights"])
def test_a_model_with_nothing_to_lower_is_refused(name: str, tmp_path: Path) -> None:
    draw = Drawing()
    draw.node("MatMul", draw.node("Relu", "x"), "w", output="y")
    model = draw.model({"x": ["N", 64], "w": [64, 64]})
    with pytest.raises(NotApplicable, match="constant"):
        made(name, material(model, tmp_path))


def test_a_weight_that_a_caller_may_override_is_left_alone(tmp_path: Path) -> None:
    model = perceptron()
    name = model.graph.initializer[0].name
    model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [64, 128]))
    given = material(perceptron(), tmp_path)
    changed = Material(model, model, given.calibration, given.feeds, given.instructions, 1, tmp_path)
    form = made("int8-matrices", changed).model
    assert operators(form).count("MatMul") == 1
    weight = np.zeros((64, 128), np.float32)
    feed = {**given.feeds[0], name: weight}
    assert np.allclose(run(form, feed), run(model, feed), atol=0.05)


def test_a_weight_that_two_layers_share_serves_both(tmp_path: Path) -> None:
    draw = Drawing()
    shared = draw.weight(64, 64)
    draw.node("MatMul", draw.node("Relu", draw.node("MatMul", "x", shared)), shared, output="y")
    model = draw.model({"x": ["N", 64]})
    for name in (*MATRICES, "int8-weights"):
        form = made(name, material(model, tmp_path)).model
        assert "MatMul" not in operators(form)
        assert difference(model, form, feeds_of(model, seed=1)) < 1e-3


def test_layers_on_one_input_share_its_rounding(tmp_path: Path) -> None:
    draw = Drawing()
    parts = [draw.node("MatMul", "x", draw.weight(64, 64)) for _ in range(3)]
    draw.node("Concat", *parts, axis=-1, output="y")
    model = draw.model({"x": ["N", 64]})
    assert operators(made("int8-matrices", material(model, tmp_path)).model).count("QuantizeLinear") == 1
    assert operators(made("int8-dynamic", material(model, tmp_path)).model).count("DynamicQuantizeLinear") == 1


@pytest.mark.parametrize("build", [convolutional, perceptron])
def test_an_older_operator_set_is_raised(build: object, tmp_path: Path) -> None:
    model = build(opset=11)
    name = "int8-static-minmax" if build is convolutional else "int8-matrices"
    form = made(name, material(model, tmp_path)).model
    assert difference(model, form, feeds_of(model, seed=1)) < 0.01


def test_bodies_of_control_flow_stay_as_they_are(tmp_path: Path) -> None:
    draw = Drawing()
    weight = draw.weight(64, 64)
    hidden = draw.node("MatMul", "x", weight)

    def body(name: str) -> onnx.GraphProto:
        node = helper.make_node("MatMul", [hidden, weight], [name], name="inner")
        return helper.make_graph([node], name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)])

    truth = draw.constant(np.array(True))
    draw.nodes.append(helper.make_node("If", [truth], ["y"], then_branch=body("a"), else_branch=body("b")))
    model = draw.model({"x": ["N", 64]})
    for name in (*MATRICES, "int8-weights"):
        form = made(name, material(model, tmp_path)).model
        assert difference(model, form, feeds_of(model, seed=1)) < 1e-3


def test_without_calibration_data_the_dynamic_form_is_made(tmp_path: Path) -> None:
    given = material(perceptron(), tmp_path, calibrated=False)
    assert "DynamicQuantizeMatMul" in operators(made("int8-dynamic", given).model)
    assert not BY_NAME["int8-dynamic"].needs_calibration
    assert all(BY_NAME[name].needs_calibration for name in (*STATIC, "int8-matrices", "int8-matrices-smooth"))


@pytest.mark.parametrize(
    ("instructions", "kind", "limit"),
    [
        (frozenset({"avx2"}), np.uint8, 64),
        (frozenset({"avx512_vnni"}), np.uint8, 127),
        (frozenset({"neon"}), np.int8, 127),
    ],
)
def test_types_and_range_follow_the_instruction_set(
    instructions: frozenset[str], kind: type, limit: int, tmp_path: Path
) -> None:
    model = perceptron()
    form = made("int8-matrices", material(model, tmp_path, instructions=instructions)).model
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in form.graph.initializer}
    node = next(node for node in form.graph.node if node.op_type == "MatMulIntegerToFloat")
    assert tensors[node.input[4]].dtype == kind
    assert np.abs(tensors[node.input[1]].astype(int)).max() == limit
    assert difference(model, form, feeds_of(model, seed=1)) < 1e-3


BFLOAT16 = frozenset({"avx2", "avx512f", "bf16"})


def properties_of(model: onnx.ModelProto) -> dict[str, str]:
    return {each.key: each.value for each in model.metadata_props}


def test_bfloat16_is_refused_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("bf16", "bf16-openvino"):
        with pytest.raises(NotApplicable, match="no instructions for bfloat16"):
            made(name, material(perceptron(), tmp_path))
    with pytest.raises(NotApplicable, match="on ARM alone"):
        made("bf16", material(perceptron(), tmp_path, instructions=BFLOAT16))
    monkeypatch.setattr(elsewhere, "installed", lambda: ("onnxruntime",))
    with pytest.raises(NotApplicable, match=r"pip install 'openclaw\[openvino\]'"):
        made("bf16-openvino", material(perceptron(), tmp_path, instructions=BFLOAT16))


def test_bfloat16_is_asked_of_the_engine_that_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elsewhere, "installed", lambda: ("onnxruntime", "openvino"))
    on_x86 = made("bf16-openvino", material(perceptron(), tmp_path, instructions=BFLOAT16)).model
    assert properties_of(on_x86) == {"openclaw.engine": "openvino", "openclaw.precision": "bf16"}
    on_arm = made("bf16", material(perceptron(), tmp_path, instructions=frozenset({"neon", "bf16"}))).model
    assert properties_of(on_arm) == {"openclaw.precision": "bf16"}


def test_operators_of_onnxruntime_alone_do_not_go_to_openvino(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elsewhere, "installed", lambda: ("onnxruntime", "openvino"))
    exported, fused = perceptron(), perceptron()
    fused.graph.node[0].domain = "com.microsoft"
    given = dataclasses.replace(material(exported, tmp_path, instructions=BFLOAT16), fused=fused)
    assert made("bf16-openvino", given).model.graph == exported.graph


def test_names_of_recipes_are_their_own() -> None:
    assert len(BY_NAME) == len(RECIPES)


def test_importing_the_library_says_nothing_and_leaves_the_root_logger_alone() -> None:
    code = (
        "import logging; root = logging.getLogger(); before = (list(root.handlers), root.level)\n"
        "from openclaw.optimizer.precision.quiet import quietly\n"
        "with quietly():\n"
        "    from onnxruntime.quantization import matmul_nbits_quantizer\n"
        "    matmul_nbits_quantizer.logger.info('start to quantize')\n"
        "assert (list(root.handlers), root.level) == before, root.handlers\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
