"""PodDisruptionBudget: how many pods a drain of nodes may take at a time."""

from openclaw_operator import names
from openclaw_operator.api.spec import Disruption
from openclaw_operator.api.v1alpha1 import InferenceService
from openclaw_operator.names import Manifest
from openclaw_operator.render.metadata import child


def disruption_budget(service: InferenceService) -> Manifest | None:
    if service.spec.suspend:
        return None
    disruption = service.spec.disruption or Disruption()
    bounds = disruption.model_dump(by_alias=True, exclude_none=True) or {"maxUnavailable": 1}
    return {
        **child(service, names.DISRUPTION_BUDGET, name=service.metadata.name),
        "spec": {**bounds, "selector": {"matchLabels": names.selector(service.metadata.name)}},
    }
