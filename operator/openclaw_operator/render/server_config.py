"""ConfigMap: the server's configuration file. Immutable and one per revision, so a pod of an old revision that
restarts in the middle of a rollout still reads the configuration it belongs to.
"""

import json
from typing import Any

from openclaw_operator import names
from openclaw_operator.api.spec import Probe, Runtime
from openclaw_operator.api.v1alpha1 import InferenceService
from openclaw_operator.names import Manifest
from openclaw_operator.render.metadata import child

FILE = "server.json"
STARTUP = Probe(period_seconds=1, failure_threshold=600, timeout_seconds=2)
LONGEST = 86400
"""Longest time to start, in seconds: the runtime takes no longer time-out, and Kubernetes counts in 32 bits."""

LEAST_RESERVE = 5
"""Seconds of the time to start that are kept for what is no download: the process comes up, the model is loaded."""


def startup_seconds(service: InferenceService) -> int:
    """Seconds that a pod has to download, load and warm up its model, at most `LONGEST`."""
    probes = service.spec.probes
    probe = (probes.startup if probes else None) or STARTUP
    period = probe.period_seconds or STARTUP.period_seconds or 1
    return min(period * (probe.failure_threshold or STARTUP.failure_threshold or 600), LONGEST)


def download_seconds(service: InferenceService) -> int:
    """Seconds that the download may take.

    Fewer than the pod has to start: a server that the startup probe kills cannot say any more what it waited for.
    """
    seconds = startup_seconds(service)
    reserve = max(LEAST_RESERVE, seconds // 10)
    return max(1, seconds - min(reserve, seconds // 2))


def server_config(service: InferenceService) -> str:
    """The configuration file, as text."""
    spec = service.spec
    model: dict[str, Any] = {
        "name": service.model_name,
        "uri": spec.model.uri,
        "format": spec.model.format,
        "downloadTimeoutSeconds": download_seconds(service),
    }
    if spec.model.sha256:
        model["sha256"] = spec.model.sha256
    if spec.model.warmup:
        model["warmup"] = {"requests": spec.model.warmup.requests}
    server: dict[str, Any] = {"port": names.PORT}
    if runtime := spec.runtime:
        if runtime.workers:
            server["workers"] = runtime.workers
        if runtime.threads:
            server["threads"] = runtime.threads
        if runtime.grpc:
            server["grpcPort"] = names.GRPC_PORT
        if batching := _batching(runtime):
            model["batching"] = batching
    return json.dumps({"model": model, "server": server}, indent=2, sort_keys=True) + "\n"


def _batching(runtime: Runtime) -> dict[str, Any]:
    asked = runtime.batching.model_dump(by_alias=True, exclude_none=True) if runtime.batching else {}
    if target := asked.pop("latencyTargetMilliseconds", None):
        asked["latencyTargetSeconds"] = target / 1000
    return asked


def config_map_name(service: str, text: str) -> str:
    return names.hashed_name(service, names.digest(text))


def config_map(service: InferenceService, text: str) -> Manifest:
    return {
        **child(service, names.CONFIG_MAP, name=config_map_name(service.metadata.name, text)),
        "immutable": True,
        "data": {FILE: text},
    }
