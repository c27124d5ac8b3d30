"""Plans of graphs: of one, in the order that needs the least, and of one model for every bucket of shapes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock

from openclaw.graph.lifetimes import Dataflow
from openclaw.memory.planner import ALIGNMENT, Plan, plan
from openclaw.memory.scheduling import bound, scheduled

Shapes = Mapping[str, Sequence[int]]


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
    order = scheduled(flow, alignment=alignment)
    found = plan(flow.buffers(order), alignment=alignment, seed=seed)
    return GraphPlan(found, tuple(order), bound(flow, alignment=alignment))


class Buckets:
    """The plans of one model, made when a bucket of shapes is first asked for; safe for several threads.

    Batching rounds requests up to few shapes, so a plan is made once and used often.
    """

    def __init__(self, flow: Callable[[Shapes], Dataflow], *, most: int = 32, alignment: int = ALIGNMENT) -> None:
        """
        Args:
            flow: the graph's dataflow for the shapes of its inputs.
            most: plans that are kept; the one that was not asked for the longest is forgotten.
            alignment: in bytes, a power of two.
        """
        self._flow = flow
        self._most = most
        self._alignment = alignment
        self._plans: OrderedDict[tuple[tuple[str, tuple[int, ...]], ...], GraphPlan] = OrderedDict()
        self._lock = Lock()

    def plan(self, shapes: Shapes) -> GraphPlan:
        """The plan for inputs of these shapes.

        Raises:
            Exception: whatever `flow` raises for these shapes; nothing is kept then.
        """
        key = tuple(sorted((name, tuple(shape)) for name, shape in shapes.items()))
        with self._lock:
            found = self._plans.get(key)
            if found is None:
                found = self._plans[key] = plan_graph(self._flow(shapes), alignment=self._alignment)
            self._plans.move_to_end(key)
            while len(self._plans) > self._most:
                self._plans.popitem(last=False)
            return found
