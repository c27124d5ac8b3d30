"""The init container that has a pod's model optimized before the server starts, and what the server is told of it."""

from copy import deepcopy
from typing import Any

from openclaw_operator import names
from openclaw_operator.api.optimize import Optimize
from openclaw_operator.api.v1alpha1 import InferenceService
from openclaw_operator.config import Config
from openclaw_operator.errors import Terminal
from openclaw_operator.names import Manifest
from openclaw_operator.render.merge import merged
from openclaw_operator.render.server_config import download_seconds

FOLDER = "/var/lib/openclaw"
"""Where the step leaves the form, and the server finds it."""
VOLUME = "prepared"
VARIABLE = "OPENCLAW_PREPARED"

_SHARED = ("imagePullPolicy", "env", "envFrom", "resources", "securityContext", "volumeMounts")
"""What the step has in common with the server: it fetches the same model, and measures with the same cores."""


def wanted(service: InferenceService) -> Optimize | None:
    """What is asked of the step; None where there is none."""
    optimize = service.spec.runtime.optimize if service.spec.runtime else None
    return optimize if optimize and optimize.mode != "off" else None


def step_seconds(service: InferenceService) -> int:
    """Seconds that the step may take, its download included; 0 where there is none."""
    optimize = wanted(service)
    return optimize.seconds + download_seconds(service) if optimize else 0


def mount() -> Manifest:
    """Where the server finds the form."""
    return {"name": VOLUME, "mountPath": FOLDER, "readOnly": True}


def with_step(spec: Manifest, optimize: Optimize, config: Config, *, arguments: list[str]) -> Manifest:
    """The pod's specification with the step before its server.

    It comes last of the init containers, for the others may bring what the server reads; what `podTemplate` says of a
    container of its name is merged over it.

    Args:
        spec: With all that `podTemplate` says merged in.
        optimize: What is asked of the step.
        config: Settings of the operator.
        arguments: Of the command, that lead it to the server's configuration.

    Raises:
        Terminal: nobody said where results are shared.
    """
    given: list[Manifest] = spec.get("initContainers") or []
    others = [each for each in given if each.get("name") != names.OPTIMIZE]
    changes = [each for each in given if each.get("name") == names.OPTIMIZE]
    server: Manifest = next((each for each in spec.get("containers") or [] if each.get("name") == names.CONTAINER), {})
    step = {
        "name": names.OPTIMIZE,
        "image": config.optimizer_image,
        "command": ["openclaw"],
        "args": ["prepare", *arguments, f"--folder={FOLDER}", *_arguments(optimize, config)],
        **deepcopy({field: server[field] for field in _SHARED if field in server}),
    }
    step["volumeMounts"] = [
        {"name": VOLUME, "mountPath": FOLDER} if each.get("mountPath") == FOLDER else each
        for each in step.get("volumeMounts", ())
    ]
    return {**spec, "initContainers": [*others, merged(step, changes[0]) if changes else step]}


def _arguments(optimize: Optimize, config: Config) -> list[str]:
    options: dict[str, Any] = {
        "precision": optimize.mode,
        "cache": optimize.cache_uri or config.optimizer_cache_uri,
        "calibration": optimize.calibration and optimize.calibration.uri,
        "accuracy-budget": optimize.accuracy_budget,
        "timeout": optimize.seconds,
    }
    if not options["cache"]:
        raise Terminal(
            "OptimizeCacheMissing",
            "spec.runtime.optimize needs a place where pods share results, or each would optimize for itself: set "
            "spec.runtime.optimize.cacheUri, as in s3://my-bucket/optimized, or for all services the chart's "
            "optimizer.cacheUri",
        )
    return [f"--{name}={value}" for name, value in options.items() if value]
