"""A request held against a model's signature."""

from __future__ import annotations

from collections.abc import Sequence

from openclaw.errors import InvalidRequest
from openclaw.execute.session import Array
from openclaw.graph.signature import Signature, TensorSpec
from openclaw.serving.inference import InferRequest, RequestedOutput, Tensor
from openclaw.serving.shown import shown


def bind(request: InferRequest, signature: Signature) -> tuple[dict[str, Array], tuple[RequestedOutput, ...]]:
    """Holds a request against a model's signature: its inputs by name, and the outputs to answer with.

    Raises:
        InvalidRequest: a name, datatype or shape is not the model's.
    """
    specs = signature.inputs_by_name
    arrays = {}
    for tensor in request.inputs:
        spec = specs.get(tensor.name)
        if spec is None:
            raise InvalidRequest(f"there is no input {shown(tensor.name)}; the model takes {listed(signature.inputs)}")
        _check_against(tensor, spec)
        arrays[tensor.name] = tensor.array
    if len(arrays) < len(specs):
        missing = next(name for name in specs if name not in arrays)
        raise InvalidRequest(f"input {shown(missing)} is missing; the model takes {listed(signature.inputs)}")
    if not request.outputs:
        return arrays, tuple([RequestedOutput(spec.name, request.binary_output) for spec in signature.outputs])
    known = {spec.name for spec in signature.outputs}
    for output in request.outputs:
        if output.name not in known:
            raise InvalidRequest(
                f"there is no output {shown(output.name)}; the model gives {listed(signature.outputs)}"
            )
    return arrays, request.outputs


def listed(specs: Sequence[TensorSpec]) -> str:
    """Tensors in a sentence."""
    return ", ".join(str(spec) for spec in specs) or "none"


def _check_against(tensor: Tensor, spec: TensorSpec) -> None:
    if tensor.datatype != spec.datatype:
        raise InvalidRequest(f"input {shown(tensor.name)} is {tensor.datatype}; the model takes {spec.datatype}")
    if not spec.accepts(tensor.array.shape):
        raise InvalidRequest(
            f"input {shown(tensor.name)} has shape {list(tensor.array.shape)}; "
            f"the model takes {list(spec.shape)} (-1: any size)"
        )
