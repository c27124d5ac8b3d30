"""Service: one stable address in front of the pods of all slots."""

from openclaw_operator import names
from openclaw_operator.api.v1alpha1 import InferenceService
from openclaw_operator.names import Manifest
from openclaw_operator.render.metadata import child


def service_address(service: InferenceService) -> Manifest:
    return {
        **child(service, names.SERVICE, name=service.metadata.name),
        "spec": {
            "selector": names.selector(service.metadata.name),
            "ports": [
                {
                    "name": names.PORT_NAME,
                    "port": 80,
                    "targetPort": names.PORT_NAME,
                    "protocol": "TCP",
                    "appProtocol": "http",
                }
            ],
        },
    }
