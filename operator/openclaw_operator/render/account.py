"""ServiceAccount: the identity of a service's pods. It has no rights, and its token is mounted nowhere."""

from openclaw_operator import names
from openclaw_operator.api.v1alpha1 import InferenceService
from openclaw_operator.names import Manifest
from openclaw_operator.render.metadata import child


def service_account(service: InferenceService) -> Manifest:
    return {
        **child(service, names.SERVICE_ACCOUNT, name=service.metadata.name),
        "automountServiceAccountToken": False,
    }
