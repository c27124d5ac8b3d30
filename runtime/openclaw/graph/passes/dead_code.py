"""What no output depends on is taken out: nodes, optional outputs, initializers, functions and opset imports.

The rewrite is onnx-ir's own. It keeps inputs and outputs of the model, and initializers that are inputs.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedFunctionsPass, RemoveUnusedNodesPass, RemoveUnusedOpsetsPass

from openclaw.graph.passes.contract import GraphPass
from openclaw.graph.passes.editing import Editor


class DeadCode(GraphPass):
    """Removes what nobody reads."""

    name = "dead-code"

    def rewrite(self, editor: Editor) -> int:
        """Counts nodes and initializers that are gone."""
        before = _count(editor.model)
        RemoveUnusedNodesPass()(editor.model)
        RemoveUnusedFunctionsPass()(editor.model)  # type: ignore[no-untyped-call]  # its constructor has no types
        RemoveUnusedOpsetsPass()(editor.model)
        return before - _count(editor.model)


def _count(model: ir.Model) -> int:
    return sum(len(graph) + len(graph.initializers) for graph in model.graphs())
