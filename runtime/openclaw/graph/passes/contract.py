"""What a pass over a graph is: a name, what it requires, how it rewrites, and how often it did.

A pass rewrites an ``onnx_ir.Model`` in place and gives the number of its rewrites. It never changes what the model
computes beyond rounding, for any input that makes no intermediate value overflow. Between passes the runner checks the
invariants of ``verification``, so a pass may rely on them: unique names over all nested graphs, nodes after what they
read, every input resolved.

A pass that looks at one kind of node at a time derives from :class:`NodePass`; one that needs the whole graph from
:class:`GraphPass`. Rules of ``onnxscript.rewriter`` are not used: those that come close look at no ``training_mode``,
or take initializers for constants that callers can override, and round in the graph's own type.
"""

from __future__ import annotations

import abc
from typing import ClassVar

import onnx_ir as ir

from openclaw.graph.passes.editing import Editor

OPSETS = range(7, 29)
"""Versions of the default domain whose operators the passes know: before 7 the arithmetic does not broadcast."""


class GraphPass(ir.passes.InPlacePass):
    """A pass that rewrites a whole model.

    Attributes:
        name: what the report and ``only`` call it, as ``gemm-batchnorm``.
        opsets: versions of the default domain that it knows; it is left out for other models.
        needs_shapes: whether the runner must infer shapes and types before it.
        speculative: whether it may make a model slower, so that only measuring on this machine can choose it.
        final: whether it runs once all others are through, and only where it is asked for: what it makes is for the
            saved file, and no other pass or recipe looks for it.
    """

    name: str
    opsets: range = OPSETS
    needs_shapes: bool = False
    speculative: bool = False
    final: bool = False

    @abc.abstractmethod
    def rewrite(self, editor: Editor) -> int:
        """Rewrites ``editor.model`` in place; the number of rewrites, 0 if nothing changed.

        The editor, and what it found out, is shared with the passes before if these changed nothing since.
        """

    def requires(self, model: ir.Model) -> None:
        """Refuses a model whose opset it does not know."""
        version = model.opset_imports.get("")
        if version is not None and version not in self.opsets:
            raise ir.passes.PreconditionError(
                f"{self.name} knows opsets {self.opsets.start} to {self.opsets.stop - 1}, and this model has {version}"
            )

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Runs the pass alone, as a part of pipelines of onnx-ir."""
        return ir.passes.PassResult(model, modified=self.rewrite(Editor(model)) > 0)

    def __str__(self) -> str:
        return self.name


class NodePass(GraphPass):
    """A pass that looks at nodes of some operators of one domain, in nested graphs too.

    Attributes:
        operators: at which :meth:`visit` looks.
        domain: of these.
    """

    operators: ClassVar[frozenset[str]]
    domain: ClassVar[str] = ""

    @abc.abstractmethod
    def visit(self, node: ir.Node, editor: Editor) -> bool:
        """Rewrites around ``node`` if that is right; whether it did."""

    def rewrite(self, editor: Editor) -> int:
        """Visits every node that is still there when its turn comes, in the graph's order."""
        found = [
            node
            for graph in editor.model.graphs()
            for node in graph
            if node.op_type in self.operators and node.domain == self.domain
        ]
        return sum(1 for node in found if node.graph is not None and self.visit(node, editor))
