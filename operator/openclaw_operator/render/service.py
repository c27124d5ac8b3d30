"""Service: one stable address in front of the pods of all slots."""

from openclaw_operator import names
from openclaw_operator.api.v1alpha1 import InferenceService
from openclaw_operator.names import Manifest
from openclaw_operator.render.metadata import child
from openclaw_operator.render.pod import answers_grpc


def service_address(service: InferenceService) -> Manifest:
    ports = [_port(names.PORT_NAME, 80, app="http")]
    if answers_grpc(service):
        ports.append(_port(names.GRPC_PORT_NAME, names.GRPC_PORT, app="kubernetes.io/h2c"))
    return {
        **child(service, names.SERVICE, name=service.metadata.name),
        "spec": {"selector": names.selector(service.metadata.name), "ports": ports},
    }


def _port(name: str, number: int, *, app: str) -> Manifest:
    return {"name": name, "port": number, "targetPort": name, "protocol": "TCP", "appProtocol": app}
