"""The engines that can run a model: onnxruntime's own kernels, and execution providers of vendors beside them.

A model names the engine that it was found to be fastest on in its properties, under ``openclaw.engine``; where that is
not installed it runs on onnxruntime's own kernels, which run every model. So a model stays one file for all machines.

A model may also say, under ``openclaw.precision``, that its products of floats may be computed in bfloat16 (``bf16``).
OpenVINO does so on x86-64, onnxruntime's own kernels on ARM, each where the CPU has the instructions; elsewhere they
are computed in 32 bits, which is more exact.

OpenVINO comes as a plugin that the installed onnxruntime loads (package onnxruntime-ep-openvino, extra
``openclaw[openvino]``); CUDA and TensorRT are built into onnxruntime-gpu, which takes the place of onnxruntime.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import onnxruntime

from openclaw.devices.instructions import read_instructions
from openclaw.devices.providers import CPU_PROVIDER, CUDA_PROVIDER, OPENVINO_PROVIDER, TENSORRT_PROVIDER
from openclaw.errors import ModelInvalid
from openclaw.execute.plugins import plugged_in
from openclaw.graph.properties import readable_properties

log = logging.getLogger(__name__)

PROPERTY = "openclaw.engine"
OWN = "onnxruntime"
"""The engine that is always there."""
OPENVINO = "openvino"
PRECISION = "openclaw.precision"
BF16 = "bf16"
"""The value of :data:`PRECISION` and, of a CPU, the instructions that it takes."""

_BUILT_IN = {
    "tensorrt": (TENSORRT_PROVIDER, CUDA_PROVIDER, CPU_PROVIDER),
    "cuda": (CUDA_PROVIDER, CPU_PROVIDER),
}


def engine_of(properties: Mapping[str, str]) -> str:
    """The engine that a model's properties name; onnxruntime's own kernels where they name none."""
    return properties.get(PROPERTY, OWN)


def named_by(path: Path) -> str:
    """The engine that a model file names; onnxruntime's own kernels where it names none, or cannot be read."""
    return engine_of(readable_properties(path))


@cache
def installed() -> tuple[str, ...]:
    """Engines that can be used in this process, onnxruntime's own kernels first."""
    return (OWN, *built_in(), *((OPENVINO,) if _openvino_on_cpu() else ()))


def built_in() -> dict[str, str]:
    """The engines that the installed onnxruntime has beside its own kernels, with the provider of each."""
    available = onnxruntime.get_available_providers()
    return {name: providers[0] for name, providers in _BUILT_IN.items() if providers[0] in available}


def usable(engine: str, *, source: str) -> str:
    """The engine, or onnxruntime's own kernels where it is not installed, which the log says of ``source``."""
    # Looking for others loads them, which who needs none is spared.
    if engine == OWN or engine in installed():
        return engine
    how = "pip install 'openclaw[openvino]'" if engine == OPENVINO else f"it needs an onnxruntime with {engine}"
    log.warning("%s is fastest on %s, which is not installed (%s): it runs on onnxruntime", source, engine, how)
    return OWN


def open_session(
    model: Path | str | bytes,
    options: Any,
    engine: str,
    *,
    threads: int,
    said: Mapping[str, str],
    without: Sequence[str] | None = None,
) -> Any:
    """A session of onnxruntime on an engine of :func:`installed`, and on no other.

    Args:
        model: a path, or the model itself.
        options: of the session; those of the engine are added.
        engine: what runs it.
        threads: of one inference.
        said: the model's properties.
        without: optimizers to do without.

    Raises:
        ModelInvalid: the engine could not be started.
        Exception: what else onnxruntime raises.
    """
    providers = _add_to(options, engine, threads=threads, bf16=said.get(PRECISION) == BF16 and multiplies_bf16())
    # Its fallback is to make the session anew on the CPU, and to print that on stdout.
    session = onnxruntime.InferenceSession(
        model, options, providers=providers, disabled_optimizers=without, enable_fallback=False
    )
    if engine in _BUILT_IN and (reason := not_started(session, _BUILT_IN[engine][0])) is not None:
        raise ModelInvalid(reason)
    return session


def not_started(session: Any, provider: str) -> str | None:
    """Why a session that was made with a provider runs without it, in a sentence; None: it runs on it.

    Left to itself onnxruntime goes on with the CPU where a provider cannot be started, and only its log tells.
    """
    if provider in session.get_providers():
        return None
    return (
        f"{provider} could not be started, most often because a library that it needs is missing or of another "
        "version; onnxruntime's log on stderr names it"
    )


@cache
def multiplies_bf16() -> bool:
    """Whether this CPU has instructions for products in bfloat16."""
    return BF16 in read_instructions()


def _add_to(options: Any, engine: str, *, threads: int, bf16: bool) -> list[str] | None:
    """The ``providers`` to make a session with; None: the options have them now.

    Args:
        options: of the session, which those of the engine are added to.
        engine: of :func:`installed`.
        threads: of one inference.
        bf16: whether products of floats may be computed in bfloat16, by a CPU that has it.
    """
    if engine == OPENVINO:
        config = _openvino_config(threads, bf16=bf16)
        options.add_provider_for_devices([_openvino_on_cpu()], {"load_config": config})
        return None
    if bf16:
        # kOrtSessionOptionsMlasGemmFastMathArm64Bfloat16; on other CPUs it changes nothing.
        options.add_session_config_entry("mlas.enable_gemm_fastmath_arm64_bfloat16", "1")
    return list(_BUILT_IN.get(engine, (CPU_PROVIDER,)))


def _openvino_config(threads: int, *, bf16: bool) -> str:
    """OpenVINO's properties, by device (docs.openvino.ai, CPU device: supported properties)."""
    properties = {
        # Left to itself it takes bfloat16 where the CPU has it, which would change answers unseen.
        "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
        "INFERENCE_NUM_THREADS": str(threads),
        "NUM_STREAMS": "1",
        # Pinned threads of two servers would sit on the same cores.
        "ENABLE_CPU_PINNING": "NO",
    }
    return json.dumps({"CPU": properties})


def _openvino_on_cpu() -> Any | None:
    return plugged_in(OPENVINO_PROVIDER, "CPU")
