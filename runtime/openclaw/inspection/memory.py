"""The plan of a model's memory, with the names that people know its parts by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from openclaw.errors import ConfigInvalid
from openclaw.inspection.operators import kind
from openclaw.inspection.reading import check_shapes, inlined, read, taken
from openclaw.inspection.shaping import Known, shaped
from openclaw.inspection.sharing import dataflow, run_nodes
from openclaw.inspection.tensors import Shape
from openclaw.memory.graphs import GraphPlan, plan_graph
from openclaw.memory.planner import Plan


@dataclass(frozen=True, slots=True)
class Node:
    """A node in the order of execution."""

    name: str
    operator: str
    kind: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where tensors that share their bytes lie, and when. Steps are numbers of nodes in the order of execution.

    Attributes:
        name: of the tensor that is made first.
        shares: names of the others: what a Reshape gives, or what is written over a tensor that nobody needs.
    """

    name: str
    bytes: int
    first: int
    last: int
    offset: int
    shares: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """The plan of a model for given sizes of its inputs.

    Attributes:
        name: of the model's file.
        nodes: in the order of execution.
        assumed: sizes that free dimensions were taken to have.
    """

    name: str
    planned: GraphPlan
    nodes: tuple[Node, ...]
    assumed: Mapping[str, int]

    @property
    def plan(self) -> Plan:
        """Offsets, arena and lower bound."""
        return self.planned.plan

    @property
    def places(self) -> list[Place]:
        """All of the plan, in the order in which memory is first needed."""
        return [
            Place(each.names[0], each.size, each.first, each.last, offset, each.names[1:])
            for each, offset in zip(self.plan.buffers, self.plan.offsets, strict=True)
        ]


class Plans:
    """The plans of one model, one for each bucket of shapes that it is run on: made when it is first asked for."""

    def __init__(self, model: onnx.ModelProto, *, name: str) -> None:
        self._model, self._name = model, name
        self._made: dict[frozenset[tuple[str, Shape]], MemoryPlan] = {}

    def of(self, shapes: Mapping[str, Shape]) -> MemoryPlan:
        """The plan for these shapes of its inputs; raises as :func:`plan_of`."""
        bucket = frozenset(shapes.items())
        if bucket not in self._made:
            self._made[bucket] = plan_of(self._model, name=self._name, shapes=shapes)
        return self._made[bucket]


def planned(path: Path, shapes: Mapping[str, Shape] | None = None) -> MemoryPlan:
    """Reads a model and plans the memory of its intermediate tensors and outputs; large weights are not read.

    Args:
        path: an ONNX file; weights may lie in files beside it.
        shapes: of inputs with free dimensions, which are 1 otherwise.

    Raises:
        ModelNotFound, ModelInvalid: as :func:`openclaw.inspection.anatomy.inspect`.
        ConfigInvalid: `shapes` do not fit the model, or a tensor's size cannot be told.
    """
    return plan_of(read(path)[0], name=path.name, shapes=shapes)


def plan_of(model: onnx.ModelProto, *, name: str, shapes: Mapping[str, Shape] | None = None) -> MemoryPlan:
    """The same of a model in memory; its functions are put where they are called.

    Raises:
        ConfigInvalid: as :func:`planned`.
    """
    model = inlined(model)
    check_shapes(model.graph, shapes or {})
    known = shaped(model, shapes)
    nodes = run_nodes(model.graph)
    _refuse_unknown(model.graph, nodes, known)
    found = plan_graph(dataflow(model.graph, known.tensors))
    ran = [nodes[number] for number in found.order]
    named = tuple(Node(node.name or node.output[0], node.op_type, kind(node.op_type)) for node in ran)
    return MemoryPlan(name=name, planned=found, nodes=named, assumed=known.assumed)


def _refuse_unknown(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto], known: Known) -> None:
    """Raises ConfigInvalid, which says what to give, if the plan would be of tensors of unknown size."""
    unknown = [(node, name) for node in nodes for name in node.output if name and name not in known.tensors]
    if not unknown:
        return
    tensors = [each.name for each in taken(graph) if each.type.WhichOneof("value") == "tensor_type"]
    untold = [each for each in tensors if each not in known.tensors]
    if untold:
        raise ConfigInvalid(
            f"the model does not say how large its input {untold[0]!r} is; "
            f"give it, for example as --shape {untold[0]}=1,3,224,224"
        )
    node, name = unknown[0]
    free = ", ".join(f"{each} = {size}" for each, size in known.assumed.items())
    inputs = " ".join(f"--shape {each}=SIZES" for each in tensors)
    hint = f"it was tried with {free}; give other sizes with {inputs}" if free else "only a run can tell it"
    more = f", nor that of {len(unknown) - 1} others" if len(unknown) > 1 else ""
    raise ConfigInvalid(f"the size of {name!r}, made by {node.op_type} {node.name!r}, is not known{more}: {hint}")
