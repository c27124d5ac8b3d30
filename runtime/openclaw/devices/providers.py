"""Execution providers of onnxruntime by the names that it knows them by, and the packages that bring some of them."""

from __future__ import annotations

from importlib.util import find_spec

CPU_PROVIDER = "CPUExecutionProvider"
CUDA_PROVIDER = "CUDAExecutionProvider"
OPENVINO_PROVIDER = "OpenVINOExecutionProvider"
TENSORRT_PROVIDER = "TensorrtExecutionProvider"

PLUGINS = {OPENVINO_PROVIDER: "onnxruntime_ep_openvino"}
"""Providers that come as packages of their own, which the installed onnxruntime loads: their modules."""


def plugin_of(provider: str) -> str | None:
    """The module of the plugin that brings a provider; None where there is none, or it is not installed."""
    module = PLUGINS.get(provider)
    return module if module is not None and find_spec(module) is not None else None
