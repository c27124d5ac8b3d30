"""What a server tells of itself and of its models, over REST as over gRPC.

Sources: https://github.com/open-inference/open-inference-protocol, and Triton's extension_model_configuration.md with
the message ``ModelConfig`` that it names.
"""

from __future__ import annotations

from typing import Any

from openclaw.graph.signature import Signature, TensorSpec

PLATFORM = "onnxruntime_onnx"
BACKEND = "onnxruntime"


def extensions(*, model_control: bool, shared_memory: bool, statistics: bool = True) -> list[str]:
    """The extensions of the protocol that are on, by their names there.

    Args:
        model_control: whether clients may load and unload models.
        shared_memory: whether tensors may lie in shared memory.
        statistics: whether the models' statistics are shown.
    """
    known = {
        "binary_tensor_data": True,
        "model_configuration": True,
        "model_repository": model_control,
        "parameters": True,
        "statistics": statistics,
        "system_shared_memory": shared_memory,
    }
    return [name for name, on in known.items() if on]


def metadata(name: str, version: str, signature: Signature) -> dict[str, Any]:
    """The model metadata document of the protocol."""
    return {
        "name": name,
        "versions": [version],
        "platform": PLATFORM,
        "inputs": [_described(spec) for spec in signature.inputs],
        "outputs": [_described(spec) for spec in signature.outputs],
    }


def configuration(name: str, signature: Signature) -> dict[str, Any]:
    """The model configuration document.

    What a server decides by itself is not in it: ``max_batch_size`` of 0 says that shapes are told whole, with the
    dimension that requests may be joined along.
    """
    return {
        "name": name,
        "platform": PLATFORM,
        "backend": BACKEND,
        "max_batch_size": 0,
        "input": [_configured(spec) for spec in signature.inputs],
        "output": [_configured(spec) for spec in signature.outputs],
        "model_transaction_policy": {"decoupled": False},
    }


def data_type(spec: TensorSpec) -> str:
    """A tensor's datatype as a model configuration has it."""
    return "TYPE_STRING" if spec.datatype == "BYTES" else f"TYPE_{spec.datatype}"


def _described(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def _configured(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "data_type": data_type(spec), "dims": list(spec.shape)}
