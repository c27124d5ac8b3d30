"""Deployment: the pods of one slot."""

from openclaw_operator import names
from openclaw_operator.api.v1alpha1 import InferenceService
from openclaw_operator.names import Manifest
from openclaw_operator.render.metadata import child
from openclaw_operator.render.optimize import step_seconds
from openclaw_operator.render.revision import Revision
from openclaw_operator.render.server_config import startup_seconds


def deployment(service: InferenceService, revision: Revision, *, slot: str, replicas: int | None) -> Manifest:
    """The Deployment of a slot; `replicas` None leaves their number to whoever owns it."""
    spec: Manifest = {
        "selector": {"matchLabels": names.selector(service.metadata.name, slot)},
        # A new pod must answer before an old one goes.
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "revisionHistoryLimit": 2,
        "progressDeadlineSeconds": step_seconds(service) + startup_seconds(service) + 60,
        "template": revision.template,
    }
    if replicas is not None:
        spec["replicas"] = replicas
    name = names.slot_name(service.metadata.name, slot)
    return {**child(service, names.DEPLOYMENT, name=name, labels={names.SLOT_LABEL: slot}), "spec": spec}
