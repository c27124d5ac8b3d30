"""Small models that the tests of the optimizer stand on, each with what is special about it in its name."""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17


def made(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    *,
    weights: Sequence[onnx.TensorProto] = (),
    opsets: Sequence[tuple[str, int]] = (("", OPSET),),
) -> onnx.ModelProto:
    """A model of these parts."""
    graph = helper.make_graph(list(nodes), "tested", list(inputs), list(outputs), list(weights))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid(*one) for one in opsets], ir_version=8)


def tensor(name: str, *shape: int | str | None, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    """An input or output; a shape with a None is free there."""
    return helper.make_tensor_value_info(name, kind, list(shape))


def weight(name: str, *shape: int, seed: int = 0, scale: float = 1.0) -> onnx.TensorProto:
    """Normally distributed numbers."""
    numbers = np.random.default_rng(seed).standard_normal(shape) * scale
    return numpy_helper.from_array(np.asarray(numbers, np.float32), name)


def mlp(width: int = 256, layers: int = 3, classes: int = 10) -> onnx.ModelProto:
    """A classifier of rows of 16 numbers."""
    nodes, weights, last, size = [], [], "x", 16
    for layer in range(layers):
        weights += [weight(f"w{layer}", size, width, seed=layer, scale=size**-0.5), weight(f"b{layer}", width, seed=9)]
        nodes.append(helper.make_node("MatMul", [last, f"w{layer}"], [f"m{layer}"]))
        nodes.append(helper.make_node("Add", [f"m{layer}", f"b{layer}"], [f"a{layer}"]))
        nodes.append(helper.make_node("Relu", [f"a{layer}"], [f"r{layer}"]))
        last, size = f"r{layer}", width
    weights.append(weight("out", width, classes, seed=7, scale=width**-0.5))
    nodes += [
        helper.make_node("MatMul", [last, "out"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    return made(nodes, [tensor("x", "N", 16)], [tensor("probabilities", "N", classes)], weights=weights)


def wasteful(work: int = 24) -> onnx.ModelProto:
    """One large product, after ``work - 1`` by the identity, which onnxruntime computes as they stand."""
    values = ["x", *(f"x{turn}" for turn in range(1, work)), "y"]
    factors = [*["identity"] * (work - 1), "w"]
    nodes = [
        helper.make_node("MatMul", [read, factor], [written])
        for read, factor, written in zip(values[:-1], factors, values[1:], strict=True)
    ]
    identity = [numpy_helper.from_array(np.eye(256, dtype=np.float32), "identity")] if work > 1 else []
    weights = [*identity, weight("w", 256, 256)]
    return made(nodes, [tensor("x", "N", 256)], [tensor("y", "N", 256)], weights=weights)


def cnn(channels: int = 16, size: int = 24, layers: int = 2) -> onnx.ModelProto:
    """Convolutions with batch normalization, as exporters give them before folding."""
    nodes, weights, last, inside = [], [], "image", 3
    for layer in range(layers):
        weights.append(weight(f"w{layer}", channels, inside, 3, 3, seed=layer, scale=(9 * inside) ** -0.5))
        for index, name in enumerate(("scale", "bias", "mean", "var")):
            numbers = np.random.default_rng(index).random(channels) + 0.5
            weights.append(numpy_helper.from_array(numbers.astype(np.float32), f"{name}{layer}"))
        nodes.append(helper.make_node("Conv", [last, f"w{layer}"], [f"c{layer}"], pads=[1, 1, 1, 1]))
        normalized = [f"c{layer}", f"scale{layer}", f"bias{layer}", f"mean{layer}", f"var{layer}"]
        nodes.append(helper.make_node("BatchNormalization", normalized, [f"n{layer}"]))
        nodes.append(helper.make_node("Relu", [f"n{layer}"], [f"r{layer}"]))
        last, inside = f"r{layer}", channels
    nodes += [helper.make_node("GlobalAveragePool", [last], ["pooled"]), helper.make_node("Flatten", ["pooled"], ["y"])]
    return made(nodes, [tensor("image", "N", 3, size, size)], [tensor("y", "N", channels)], weights=weights)


def embedding() -> onnx.ModelProto:
    """Rows of a table of 7, picked by an index of any length."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["picked"]),
        helper.make_node("Tanh", ["picked"], ["vectors"]),
    ]
    ids = tensor("ids", "N", "S", kind=TensorProto.INT64)
    return made(nodes, [ids], [tensor("vectors", "N", "S", 5)], weights=[weight("table", 7, 5)])


def branching() -> onnx.ModelProto:
    """An If whose branches read what is around them."""

    def branch(operator: str) -> onnx.GraphProto:
        return helper.make_graph([helper.make_node(operator, ["x", "w"], ["b"])], operator, [], [tensor("b", "N", 4)])

    node = helper.make_node("If", ["flag"], ["y"], then_branch=branch("Add"), else_branch=branch("Mul"))
    inputs = [tensor("flag", kind=TensorProto.BOOL), tensor("x", "N", 4)]
    return made([node], inputs, [tensor("y", "N", 4)], weights=[weight("w", 4)])


def looping() -> onnx.ModelProto:
    """A Loop of three turns that adds what is around it, scaled by what can be computed ahead."""
    body = helper.make_graph(
        [
            helper.make_node("Add", ["w", "w"], ["twice"]),
            helper.make_node("Mul", ["carried", "twice"], ["scaled"]),
            helper.make_node("Add", ["scaled", "x"], ["next"]),
            helper.make_node("Identity", ["going"], ["goes"]),
        ],
        "body",
        [tensor("turn", kind=TensorProto.INT64), tensor("going", kind=TensorProto.BOOL), tensor("carried", "N", 4)],
        [tensor("goes", kind=TensorProto.BOOL), tensor("next", "N", 4)],
    )
    node = helper.make_node("Loop", ["turns", "", "x"], ["y"], body=body)
    turns = numpy_helper.from_array(np.array(3, np.int64), "turns")
    return made([node], [tensor("x", "N", 4)], [tensor("y", "N", 4)], weights=[turns, weight("w", 4)])


def scanning() -> onnx.ModelProto:
    """A Scan over rows that keeps a running sum, and gives each with what can be computed ahead added."""
    body = helper.make_graph(
        [
            helper.make_node("Add", ["sum", "row"], ["next"]),
            helper.make_node("Add", ["w", "w"], ["twice"]),
            helper.make_node("Mul", ["next", "twice"], ["told"]),
        ],
        "body",
        [tensor("sum", 4), tensor("row", 4)],
        [tensor("next", 4), tensor("told", 4)],
    )
    node = helper.make_node("Scan", ["begin", "x"], ["last", "y"], body=body, num_scan_inputs=1)
    begin = numpy_helper.from_array(np.zeros(4, np.float32), "begin")
    outputs = [tensor("last", 4), tensor("y", "N", 4)]
    return made([node], [tensor("x", "N", 4)], outputs, weights=[begin, weight("w", 4)])


def words() -> onnx.ModelProto:
    """Strings in, strings out."""
    nodes = [helper.make_node("Identity", ["text"], ["same"])]
    kind = TensorProto.STRING
    return made(nodes, [tensor("text", "N", kind=kind)], [tensor("same", "N", kind=kind)])


def dice() -> onnx.ModelProto:
    """Another answer to the same input every time."""
    nodes = [helper.make_node("RandomNormalLike", ["x"], ["noise"]), helper.make_node("Add", ["x", "noise"], ["y"])]
    return made(nodes, [tensor("x", "N", 4)], [tensor("y", "N", 4)])


def sequence() -> onnx.ModelProto:
    """A sequence of tensors in."""
    value = helper.make_tensor_sequence_value_info("parts", TensorProto.FLOAT, ["N", 4])
    return made([helper.make_node("ConcatFromSequence", ["parts"], ["y"], axis=0)], [value], [tensor("y", None, 4)])


def any_rank() -> onnx.ModelProto:
    """An input of which not even the number of dimensions is known."""
    value = helper.make_value_info("x", helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    output = helper.make_value_info("y", helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    return made([helper.make_node("Relu", ["x"], ["y"])], [value], [output])


def cyclic() -> onnx.ModelProto:
    """Two nodes that wait for each other."""
    nodes = [
        helper.make_node("Add", ["x", "b"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="second"),
    ]
    return made(nodes, [tensor("x", 4)], [tensor("b", 4)])


def unsorted() -> onnx.ModelProto:
    """Nodes in an order in which they cannot run."""
    nodes = [helper.make_node("Relu", ["a"], ["y"]), helper.make_node("Neg", ["x"], ["a"])]
    return made(nodes, [tensor("x", 4)], [tensor("y", 4)])


def foreign(domain: str = "my.company") -> onnx.ModelProto:
    """An operator that nobody here knows."""
    node = helper.make_node("Frobnicate", ["x"], ["y"], domain=domain)
    return made([node], [tensor("x", 4)], [tensor("y", 4)], opsets=(("", OPSET), (domain, 1)))
