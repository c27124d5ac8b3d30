"""What a model is made of, without running it: nodes, fusions, precision, size, work, and memory step by step."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from openclaw.graph.lifetimes import live
from openclaw.inspection.operators import FUSED, every_node, every_weight, kind
from openclaw.inspection.reading import check_shapes, inlined, read, said, taken
from openclaw.inspection.shaping import Known, shaped
from openclaw.inspection.sharing import dataflow, run_nodes
from openclaw.inspection.tensors import Shape, shown, stored
from openclaw.inspection.work import multiply_accumulates, precision
from openclaw.memory.numbered import Numbered

_COUNTED = frozenset(("FP32", "FP64", "FP16", "BF16", "INT8", "UINT8", "INT4", "UINT4", "INT2", "UINT2", "INT32"))


@dataclass(frozen=True, slots=True)
class Moment:
    """One node in the order of execution: its operator, bytes that live while it runs, and those that it makes."""

    node: str
    operator: str
    kind: str
    live: int
    makes: int
    shape: str


@dataclass(frozen=True, slots=True)
class Inspection:
    """All that is told of a model. Sizes are bytes.

    Attributes:
        size: on disk, with the files that hold its weights.
        opsets: version of each domain's operators.
        inputs: and `outputs`: each as ``name: FP32[N,3,224,224]``.
        operators: how often each occurs, in graphs inside nodes too, the most frequent first.
        fusions: those of them that do the work of several.
        parameters: numbers in weights, but indices and shapes.
        weights: bytes in each datatype.
        work: multiply-accumulates of one run in each precision; None where shapes are not known.
        activations: the most bytes of intermediate tensors and outputs that live at once, in the file's order of
            nodes; None where shapes are not known.
        activations_sum: bytes of all of them: what a run without any reuse would take.
        assumed: sizes that free dimensions were taken to have.
        unknown: tensors whose shapes cannot be told without running it.
        moments: every node of the main graph.
    """

    name: str
    size: int
    producer: str
    ir_version: int
    opsets: Mapping[str, int]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    operators: Mapping[str, int]
    fusions: Mapping[str, int]
    parameters: int
    weights: Mapping[str, int]
    work: Mapping[str, int] | None
    activations: int | None
    activations_sum: int | None
    assumed: Mapping[str, int]
    unknown: int
    moments: tuple[Moment, ...]

    @property
    def nodes(self) -> int:
        """Of all graphs."""
        return sum(self.operators.values())

    @property
    def weights_size(self) -> int:
        """Bytes of all weights."""
        return sum(self.weights.values())

    @property
    def work_sum(self) -> int | None:
        """Multiply-accumulates of one run."""
        return None if self.work is None else sum(self.work.values())


def inspect(path: Path, shapes: Mapping[str, Shape] | None = None) -> Inspection:
    """Reads a model and tells what it is made of; large weights are not read.

    Args:
        path: an ONNX file; weights may lie in files beside it.
        shapes: of inputs with free dimensions, which are 1 otherwise.

    Raises:
        ModelNotFound: there is no such file, or it cannot be read.
        ModelInvalid: it is not an ONNX model, was cut short, or lacks the files with its weights.
        ConfigInvalid: `shapes` name an input that does not exist, or do not fit it.
    """
    model, size = read(path)
    return described(model, name=path.name, size=size, shapes=shapes)


def described(model: onnx.ModelProto, *, name: str, size: int, shapes: Mapping[str, Shape] | None = None) -> Inspection:
    """The same of a model in memory; its functions are put where they are called."""
    model = inlined(model)
    graph = model.graph
    check_shapes(graph, shapes or {})
    known = shaped(model, shapes)
    counted = Counter(node.op_type for node in every_node(graph))
    operators = dict(sorted(counted.items(), key=lambda each: (-each[1], each[0])))
    weights: Counter[str] = Counter()
    parameters = 0
    for weight in every_weight(graph):
        elements, datatype = math.prod(weight.dims), shown(weight.data_type)
        weights[datatype] += stored(weight.data_type, elements)
        parameters += elements if datatype in _COUNTED else 0
    moments, most, total = _memory(graph, known)
    return Inspection(
        name=name,
        size=size,
        producer=" ".join(filter(None, (model.producer_name, model.producer_version))),
        ir_version=model.ir_version,
        opsets={each.domain or "ai.onnx": each.version for each in model.opset_import},
        inputs=tuple(said(each) for each in taken(graph)),
        outputs=tuple(said(each) for each in graph.output),
        operators=operators,
        fusions={operator: count for operator, count in operators.items() if operator in FUSED},
        parameters=parameters,
        weights=dict(weights.most_common()),
        work=_work(graph, known),
        activations=most,
        activations_sum=total,
        assumed=known.assumed,
        unknown=sum(each not in known.tensors for each in _made(graph)),
        moments=moments,
    )


def _made(graph: onnx.GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield from filter(None, node.output)


def _work(graph: onnx.GraphProto, known: Known) -> Mapping[str, int] | None:
    makers = {name: node for node in graph.node for name in node.output}
    work: Counter[str] = Counter()
    for node in graph.node:
        count = multiply_accumulates(node, known.tensors)
        if count is None:
            return None
        if count:
            work[precision(node, known.tensors, makers)] += count
    return dict(work.most_common())


def _memory(graph: onnx.GraphProto, known: Known) -> tuple[tuple[Moment, ...], int | None, int | None]:
    """Every node's moment; the most bytes that live at once, and the bytes of all, unless a size is not known."""
    nodes, flow = run_nodes(graph), dataflow(graph, known.tensors)
    sizes = flow.sizes
    steps = Numbered(replace(flow, in_place=()))
    every = steps.buffers(steps.own)
    bytes_at = live(every, len(nodes))
    moments = tuple(
        Moment(
            node=node.name or node.output[0],
            operator=node.op_type,
            kind=kind(node.op_type),
            live=bytes_at[number],
            makes=sum(sizes.get(name, 0) for name in node.output if name),
            shape=_shape(known, node),
        )
        for number, node in enumerate(nodes)
    )
    if any(name not in known.tensors for node in nodes for name in node.output if name):
        return moments, None, None
    return moments, max(bytes_at, default=0), sum(each.size for each in every)


def _shape(known: Known, node: onnx.NodeProto) -> str:
    tensor = known.tensors.get(node.output[0]) if node.output else None
    return f"{shown(tensor.datatype)}[{','.join(map(str, tensor.shape))}]" if tensor else "?"
