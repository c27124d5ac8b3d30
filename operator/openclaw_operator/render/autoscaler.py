"""HorizontalPodAutoscaler: follows the load of the stable slot's pods."""

from openclaw_operator import names
from openclaw_operator.api.spec import Scaling, ScalingTarget
from openclaw_operator.api.v1alpha1 import InferenceService
from openclaw_operator.names import Manifest
from openclaw_operator.render.metadata import child

DEFAULT_MAX = 4
DEFAULT_CPU_UTILIZATION = 80


def min_replicas(service: InferenceService) -> int:
    scaling = service.spec.scaling
    return (scaling and scaling.min_replicas) or 1


def max_replicas(service: InferenceService) -> int:
    scaling = service.spec.scaling
    return (scaling and scaling.max_replicas) or max(DEFAULT_MAX, min_replicas(service))


def autoscaled(service: InferenceService) -> bool:
    """Whether an autoscaler owns the number of replicas."""
    return not service.spec.suspend and max_replicas(service) > min_replicas(service)


def autoscaler(service: InferenceService, *, slot: str) -> Manifest | None:
    if not autoscaled(service):
        return None
    name = names.slot_name(service.metadata.name, slot)
    spec: Manifest = {
        "scaleTargetRef": {
            "apiVersion": names.DEPLOYMENT.api_version,
            "kind": names.DEPLOYMENT.name,
            "name": name,
        },
        "minReplicas": min_replicas(service),
        "maxReplicas": max_replicas(service),
        "metrics": _metrics(service.spec.scaling),
    }
    behavior = service.spec.scaling and service.spec.scaling.behavior
    if behavior:
        spec["behavior"] = behavior.model_dump(by_alias=True, exclude_none=True)
    return {**child(service, names.AUTOSCALER, name=name, labels={names.SLOT_LABEL: slot}), "spec": spec}


def _metrics(scaling: Scaling | None) -> list[Manifest]:
    target = (scaling and scaling.target) or ScalingTarget()
    cpu = target.cpu_utilization
    if cpu is None and target.memory_utilization is None:
        cpu = DEFAULT_CPU_UTILIZATION
    wanted = {"cpu": cpu, "memory": target.memory_utilization}
    # Of the server's container alone: a sidecar must not scale the model.
    return [
        {
            "type": "ContainerResource",
            "containerResource": {
                "name": resource,
                "container": names.CONTAINER,
                "target": {"type": "Utilization", "averageUtilization": percent},
            },
        }
        for resource, percent in wanted.items()
        if percent is not None
    ]
