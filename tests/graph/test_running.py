"""What the runner holds every pass to, and what a caller of ``apply`` can ask for."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from graph.building import Drawing
from graph.oracle import assert_same_answers, optimized
from openclaw.errors import ConfigInvalid
from openclaw.graph import passes
from openclaw.graph.passes.contract import GraphPass, NodePass
from openclaw.graph.passes.editing import Editor
from openclaw.graph.passes.running import ROUNDS, PassFailed, run


def relu_model():
    draw = Drawing()
    return draw.model(draw.add("Relu", draw.input("x", ["batch", 3])))


def form():
    return ir.from_proto(relu_model())


class Breaks(GraphPass):
    """Breaks a model in the way that it was made with."""

    name = "breaks"

    def __init__(self, how):
        super().__init__()
        self._how = how

    def rewrite(self, editor: Editor) -> int:
        self._how(editor.model.graph)
        return 1


def unsort(graph):
    last = ir.node("Neg", [graph.outputs[0]])
    graph.insert_before(graph[0], last)


def read_nothing(graph):
    graph[0].replace_input_with(0, ir.Value(name="nowhere"))


def take_a_name_twice(graph):
    graph.insert_after(graph[0], ir.node("Neg", [graph.inputs[0]], outputs=[ir.Value(name="x")]))


def rename_an_output(graph):
    graph.outputs[0].name = "other"


def change_an_input_type(graph):
    graph.inputs[0].type = ir.TensorType(ir.DataType.DOUBLE)


def drop_an_output(graph):
    graph.outputs.clear()


def leave_data_out(graph):
    graph.initializers.add(ir.Value(name="hollow"))


def raise_an_error(graph):
    raise KeyError("broken")


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        (unsort, "not defined before it"),
        (read_nothing, "not defined before it"),
        (take_a_name_twice, "taken twice"),
        (rename_an_output, "outputs changed"),
        (change_an_input_type, "inputs changed"),
        (drop_an_output, "outputs changed"),
        (leave_data_out, "has no data"),
        (raise_an_error, "KeyError: 'broken'"),
    ],
)
def test_a_pass_that_breaks_an_invariant_is_named(how, reason):
    with pytest.raises(PassFailed, match=reason) as caught:
        run(form(), [Breaks(how)])
    assert caught.value.name == "breaks"


class NeverDone(GraphPass):
    """Always finds something."""

    name = "never-done"

    def rewrite(self, editor: Editor) -> int:
        return 1


def test_a_pass_that_never_ends_is_ended():
    assert run(form(), [NeverDone()]) == {"never-done": ROUNDS}


class ReluToNeg(NodePass):
    """Rewrites each Relu, which shows that it was there."""

    name = "relu-neg"
    operators = frozenset({"Relu"})
    opsets = range(13, 18)

    def visit(self, node: ir.Node, editor: Editor) -> bool:
        neg = editor.node("Neg", node.inputs, like=node)
        editor.replace([node], [neg], results={node.outputs[0]: neg.outputs[0]})
        return True


@pytest.mark.parametrize(("opset", "rewrites"), [(12, {}), (13, {"relu-neg": 1}), (17, {"relu-neg": 1}), (18, {})])
def test_a_pass_is_left_out_for_opsets_that_it_does_not_know(opset, rewrites):
    draw = Drawing(opset=opset)
    model = ir.from_proto(draw.model(draw.add("Relu", draw.input("x", [3]))))
    assert run(model, [ReluToNeg()]) == rewrites


def test_a_replaced_output_keeps_its_name_type_and_shape():
    model = form()
    name = model.graph.outputs[0].name
    run(model, [ReluToNeg()])
    output = model.graph.outputs[0]
    assert (output.name, output.dtype, output.producer().op_type) == (name, ir.DataType.FLOAT, "Neg")
    assert len(output.shape) == 2


def test_a_pass_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(ConfigInvalid, match=r"no 'conv-bn'.*conv-batchnorm"):
        passes.apply(form(), only=["conv-bn"])


def test_no_pass_at_all_changes_nothing():
    model = relu_model()
    after, counts = optimized(model, only=[])
    assert counts == {}
    assert [node.op_type for node in after.graph.node] == ["Relu"]


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [
        ({"y": [1, 3]}, "no input 'y'; it has 'x'"),
        ({"x": [1, 4]}, "does not fit"),
        ({"x": [3]}, "does not fit"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shapes, reason):
    with pytest.raises(ConfigInvalid, match=reason):
        passes.apply(form(), shapes=shapes)


def test_shapes_that_fit_are_those_of_the_model_afterwards():
    before = relu_model()
    after, _ = optimized(before, shapes={"x": [5, 3]})
    dims = after.graph.output[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in dims] == [5, 3]
    assert_same_answers(before, after, {"x": np.ones((5, 3), np.float32)})


def test_a_model_with_a_cycle_is_refused_and_left():
    model = relu_model()
    model.graph.node[0].input[0] = "loop"
    model.graph.node.append(onnx.helper.make_node("Neg", [model.graph.node[0].output[0]], ["loop"]))
    with pytest.raises(ir.passes.PreconditionError, match="not sound"):
        passes.apply(ir.from_proto(model))


def test_nodes_out_of_order_are_put_in_order():
    draw = Drawing()
    model = draw.model(draw.add("Neg", draw.add("Relu", draw.input("x", [3]))))
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    after, _ = optimized(model)
    assert [node.op_type for node in after.graph.node] == ["Relu", "Neg"]


def test_every_pass_has_a_name_of_its_own_that_a_shell_takes():
    names = [one.name for one in (*passes.LOSSLESS, *passes.FINAL)]
    assert len(set(names)) == len(names)
    assert all(name.replace("-", "").isalnum() and name.islower() for name in names)


def test_names_are_unique_over_nested_graphs():
    draw = Drawing()
    x = draw.input("x", [2])
    yes, no = Drawing(prefix="yes_"), Drawing(prefix="no_")
    y = draw.add(
        "If",
        draw.input("condition", [], np.bool_),
        then_branch=yes.body(yes.add("Neg", x)),
        else_branch=no.body(no.add("Neg", x)),
    )
    editor = Editor(ir.from_proto(draw.model(y)))
    taken = {"x", "condition", "yes_neg0", "no_neg0", y}
    assert not {editor.name(name) for name in sorted(taken)} & taken
    assert editor.name("new") == "new"
    assert editor.name("new") == "new_1"


class Looks(GraphPass):
    """Keeps the shapes that it is shown."""

    name = "looks"

    def __init__(self):
        super().__init__()
        self.seen = []

    def rewrite(self, editor: Editor) -> int:
        self.seen.append(editor.shapes)
        return 0


def test_shapes_are_found_out_once_for_all_passes_until_one_changes_the_model():
    looks = Looks()
    run(form(), [looks, looks, ReluToNeg(), looks])
    first, second, third, *later = looks.seen
    assert first is second
    assert third is not first
    assert all(one is third for one in later)
