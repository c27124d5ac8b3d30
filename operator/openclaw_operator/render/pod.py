"""The pod template: one container, restricted, with the probes that make Ready true; before it, where it is asked for,
the step that optimizes the model.
"""

from typing import Any

from openclaw_operator import names
from openclaw_operator.api.spec import Probe, Probes, Resources
from openclaw_operator.api.v1alpha1 import InferenceService
from openclaw_operator.config import Config
from openclaw_operator.names import Manifest
from openclaw_operator.render import optimize, server_config
from openclaw_operator.render.merge import merged

CONFIG_DIR = "/etc/openclaw"
CACHE_DIR = "/var/cache/openclaw"
USER = 65532

_CONFIG = f"--config={CONFIG_DIR}/{server_config.FILE}"

READINESS = Probe(period_seconds=5, timeout_seconds=2, failure_threshold=3)
LIVENESS = Probe(period_seconds=10, timeout_seconds=5, failure_threshold=6)


def pod_template(service: InferenceService, config: Config, *, slot: str, image: str, config_map: str) -> Manifest:
    """The template without its revision label, which is a hash of it.

    A pure function of the service, of the image, and of the settings meant for pods: nothing else may reach it.

    Raises:
        Terminal: the service asks for what cannot be rendered with these settings.
    """
    step = optimize.wanted(service)
    spec: Manifest = {
        "serviceAccountName": service.metadata.name,
        "automountServiceAccountToken": False,
        # A Service named openclaw would give every pod OPENCLAW_PORT=tcp://..., which is a setting of the server.
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 60,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(service, config, image=image)],
        "volumes": [
            {"name": "config", "configMap": {"name": config_map}},
            {"name": "cache", "emptyDir": {}},
            {"name": "tmp", "emptyDir": {}},
            *([{"name": optimize.VOLUME, "emptyDir": {}}] if step else []),
        ],
    }
    labels = {
        names.MANAGED_BY_LABEL: names.FIELD_MANAGER,
        **names.selector(service.metadata.name, slot),
    }
    own = {"metadata": {"labels": labels}, "spec": spec}
    given = service.spec.pod_template
    template = merged(own, given.model_dump(by_alias=True, exclude_none=True) if given else {})
    if step:
        template["spec"] = optimize.with_step(template["spec"], step, config, arguments=[_CONFIG])
    # The selector finds pods by these labels: a template that changed them would own pods it cannot see.
    template["metadata"]["labels"] |= labels
    return template


def _container(service: InferenceService, config: Config, *, image: str) -> Manifest:
    spec = service.spec
    runtime = spec.runtime
    container: Manifest = {
        "name": names.CONTAINER,
        "image": image,
        "command": ["openclaw"],
        "args": ["serve", _CONFIG, *((runtime and runtime.args) or [])],
        "env": _environment(service),
        "ports": _ports(service),
        "resources": _resources(spec.resources, config),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "config", "mountPath": CONFIG_DIR, "readOnly": True},
            {"name": "cache", "mountPath": CACHE_DIR},
            {"name": "tmp", "mountPath": "/tmp"},
            *([optimize.mount()] if optimize.wanted(service) else []),
        ],
        **_probes(service),
    }
    if config.image_pull_policy:
        container["imagePullPolicy"] = config.image_pull_policy
    if spec.model.credentials:
        container["envFrom"] = [{"secretRef": {"name": spec.model.credentials.secret_name}}]
    return container


def _ports(service: InferenceService) -> list[Manifest]:
    ports = [{"name": names.PORT_NAME, "containerPort": names.PORT, "protocol": "TCP"}]
    if answers_grpc(service):
        ports.append({"name": names.GRPC_PORT_NAME, "containerPort": names.GRPC_PORT, "protocol": "TCP"})
    return ports


def answers_grpc(service: InferenceService) -> bool:
    """Whether pods listen on the port for gRPC."""
    return bool(service.spec.runtime and service.spec.runtime.grpc)


def _environment(service: InferenceService) -> list[dict[str, Any]]:
    runtime = service.spec.runtime
    own = [{"name": "OPENCLAW_CACHE_DIR", "value": CACHE_DIR}]
    if optimize.wanted(service):
        own.append({"name": optimize.VARIABLE, "value": optimize.FOLDER})
    given = [env.model_dump(by_alias=True, exclude_none=True) for env in (runtime and runtime.env) or []]
    taken = {env["name"] for env in given}
    return [env for env in own if env["name"] not in taken] + given


def _resources(resources: Resources | None, config: Config) -> Manifest:
    requests = dict((resources and resources.requests) or {})
    limits = dict((resources and resources.limits) or {})
    for name, default in (("cpu", config.default_cpu), ("memory", config.default_memory)):
        # A limit without a request is a request of the same size, by Kubernetes' own rule.
        if name not in limits:
            requests.setdefault(name, default)
    return {"requests": requests, **({"limits": limits} if limits else {})}


def _probes(service: InferenceService) -> Manifest:
    probes = service.spec.probes or Probes()
    return {
        "startupProbe": _probe("/v2/health/ready", probes.startup, default=server_config.STARTUP),
        "readinessProbe": _probe("/v2/health/ready", probes.readiness, default=READINESS),
        "livenessProbe": _probe("/v2/health/live", probes.liveness, default=LIVENESS),
    }


def _probe(path: str, probe: Probe | None, *, default: Probe) -> Manifest:
    timing = default.model_dump(by_alias=True, exclude_none=True)
    timing |= probe.model_dump(by_alias=True, exclude_none=True) if probe else {}
    return {"httpGet": {"path": path, "port": names.PORT_NAME, "scheme": "HTTP"}, **timing}
