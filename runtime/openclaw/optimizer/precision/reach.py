"""How much of a model's work a recipe can reach: where it is next to nothing, the recipe is not worth its time."""

from __future__ import annotations

from openclaw.errors import NotApplicable
from openclaw.inspection.operators import kind
from openclaw.inspection.shaping import shaped
from openclaw.inspection.work import multiply_accumulates
from openclaw.optimizer.recipe import Material

LEAST = 0.1
"""The share of multiplications below which matrices are left alone: a form cannot become faster by more than that."""
_SHARED = "share of matrices"


def matrices_share(material: Material) -> float | None:
    """The share of all multiplications that are not in convolutions, for the shapes of the first feed; None: unknown.

    What cannot be told of a node that is no convolution counts for the matrices.
    """
    if _SHARED not in material.shared:
        material.shared[_SHARED] = _share(material)
    share: float | None = material.shared[_SHARED]
    return share


def _share(material: Material) -> float | None:
    graph = material.fused.graph
    if not any(kind(node.op_type) == "convolution" for node in graph.node):
        return 1.0
    shapes = {name: tuple(array.shape) for name, array in material.feeds[0].items()} if material.feeds else {}
    tensors = shaped(material.fused, shapes).tensors
    convolutions = others = 0
    for node in graph.node:
        count = multiply_accumulates(node, tensors)
        if count is None:
            return None
        if kind(node.op_type) == "convolution":
            convolutions += count
        else:
            others += count
    whole = convolutions + others
    return others / whole if whole else None


def worth_matrices(material: Material) -> None:
    """Raises NotApplicable where nearly all that the model computes are convolutions."""
    share = matrices_share(material)
    if share is not None and share < LEAST:
        raise NotApplicable(
            f"it lowers matrix products alone, and they are {share:.2%} of the model's multiplications; "
            f"below {LEAST:.0%} nothing is gained"
        )
