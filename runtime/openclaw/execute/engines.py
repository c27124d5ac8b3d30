"""The engines that can run a model: onnxruntime's own kernels, and execution providers of vendors beside them.

A model names the engine that it was found to be fastest on in its properties, under ``openclaw.engine``; where that is
not installed it runs on onnxruntime's own kernels, which run every model. So a model stays one file for all machines.

OpenVINO comes as a plugin that the installed onnxruntime loads (package onnxruntime-ep-openvino, extra
``openclaw[openvino]``); CUDA and TensorRT are built into onnxruntime-gpu, which takes the place of onnxruntime.
"""

from __future__ import annotations

import importlib.util
import json
import logging
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import onnxruntime

from openclaw.graph.properties import read_properties

log = logging.getLogger(__name__)

PROPERTY = "openclaw.engine"
OWN = "onnxruntime"
"""The engine that is always there."""
OPENVINO = "openvino"

CPU_PROVIDER = "CPUExecutionProvider"
_OPENVINO_PROVIDER = "OpenVINOExecutionProvider"
_OPENVINO_PLUGIN = "onnxruntime_ep_openvino"
_BUILT_IN = {
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", CPU_PROVIDER),
    "cuda": ("CUDAExecutionProvider", CPU_PROVIDER),
}


def engine_of(properties: Mapping[str, str]) -> str:
    """The engine that a model's properties name; onnxruntime's own kernels where they name none."""
    return properties.get(PROPERTY, OWN)


def named_by(path: Path) -> str:
    """The engine that a model file names; onnxruntime's own kernels where it names none, or cannot be read."""
    try:
        return engine_of(read_properties(path))
    except OSError:
        return OWN


@cache
def installed() -> tuple[str, ...]:
    """Engines that can be used in this process, onnxruntime's own kernels first."""
    built_in = [name for name, providers in _BUILT_IN.items() if providers[0] in onnxruntime.get_available_providers()]
    return (OWN, *built_in, *((OPENVINO,) if _openvino_on_cpu() else ()))


def usable(engine: str, *, source: str) -> str:
    """The engine, or onnxruntime's own kernels where it is not installed, which the log says of ``source``."""
    # Looking for others loads them, which who needs none is spared.
    if engine == OWN or engine in installed():
        return engine
    how = "pip install 'openclaw[openvino]'" if engine == OPENVINO else f"it needs an onnxruntime with {engine}"
    log.warning("%s is fastest on %s, which is not installed (%s): it runs on onnxruntime", source, engine, how)
    return OWN


def add_to(options: Any, engine: str, *, threads: int) -> list[str] | None:
    """Has sessions that are made with these options run on an engine of :func:`installed`.

    Returns:
        the ``providers`` to make the session with; None: the options have them.
    """
    if engine == OPENVINO:
        options.add_provider_for_devices([_openvino_on_cpu()], {"load_config": _openvino_config(threads)})
        return None
    return list(_BUILT_IN.get(engine, (CPU_PROVIDER,)))


def _openvino_config(threads: int) -> str:
    """OpenVINO's properties, by device (docs.openvino.ai, CPU device: supported properties)."""
    properties = {
        # Its default is bfloat16 where the CPU has it, which would change answers unseen.
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": str(threads),
        "NUM_STREAMS": "1",
        # Pinned threads of two servers would sit on the same cores.
        "ENABLE_CPU_PINNING": "NO",
    }
    return json.dumps({"CPU": properties})


@cache
def _openvino_on_cpu() -> Any | None:
    """The CPU as OpenVINO's plugin offers it; None where the plugin is not installed, or runs on no CPU here."""
    if importlib.util.find_spec(_OPENVINO_PLUGIN) is None:
        return None
    plugin = importlib.import_module(_OPENVINO_PLUGIN)
    try:
        onnxruntime.register_execution_provider_library(_OPENVINO_PROVIDER, plugin.get_library_path())
    except Exception as error:
        # onnxruntime's exceptions have no common base below Exception, and a plugin's loader raises any.
        log.warning("OpenVINO's plugin cannot be loaded, so it is not used: %s", error)
        return None
    found = (one for one in onnxruntime.get_ep_devices() if one.ep_name == _OPENVINO_PROVIDER)
    return next((one for one in found if one.ep_metadata.get("ov_device") == "CPU"), None)
