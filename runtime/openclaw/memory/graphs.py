"""Plans of graphs: where tensors lie, and the order of execution that needs the least."""

from __future__ import annotations

from dataclasses import dataclass

from openclaw.graph.lifetimes import Dataflow
from openclaw.memory.numbered import Numbered
from openclaw.memory.planner import ALIGNMENT, Plan, plan
from openclaw.memory.scheduling import scheduled


@dataclass(frozen=True, slots=True)
class GraphPlan:
    """A plan, and the order of execution that it holds for.

    Attributes:
        order: the steps' numbers in the graph, in the order in which they run; the plan's buffers count by it.
        own_bound_bytes: the lower bound in the graph's own order; above the plan's where the order is another one.
    """

    plan: Plan
    order: tuple[int, ...]
    own_bound_bytes: int

    @property
    def rearranged(self) -> bool:
        """Whether steps run in another order than the graph has them in."""
        return any(number != step for number, step in enumerate(self.order))


def plan_graph(flow: Dataflow, *, alignment: int = ALIGNMENT, seed: int = 0) -> GraphPlan:
    """The plan of a graph; its steps run in another order only if that lowers the bound.

    Raises:
        ValueError: as :func:`openclaw.memory.planner.plan`.
    """
    graph = Numbered(flow)
    order = scheduled(graph, alignment=alignment)
    found = plan(graph.buffers(order), alignment=alignment, seed=seed)
    return GraphPlan(found, tuple(order), graph.bound(graph.own, alignment=alignment))
