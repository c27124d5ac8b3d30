"""Names and labels of everything the operator owns, and the kinds it owns."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from openclaw_operator.api import v1alpha1

Manifest = dict[str, Any]

FIELD_MANAGER = "openclaw"
CONTAINER = "server"
OPTIMIZE = "optimize"
"""The init container of pods whose model is optimized first."""
PORT = 8080
PORT_NAME = "http"
GRPC_PORT = 8081
GRPC_PORT_NAME = "grpc"

SERVICE_LABEL = "openclaw.io/service"
SLOT_LABEL = "openclaw.io/slot"
REVISION_LABEL = "openclaw.io/revision"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"

APPLIED_ANNOTATION = "openclaw.io/applied"
"""Hash of the manifest as applied: tells a removed field from one that somebody else added."""
SPEC_ANNOTATION = "openclaw.io/spec"
"""On a ControllerRevision: hash of the part of the spec that it was rendered from."""
IMAGE_ANNOTATION = "openclaw.io/default-image"
"""On a ControllerRevision: the image pinned for services that name none."""


class Key(NamedTuple):
    """An InferenceService, by namespace and name."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of Kubernetes object."""

    api_version: str
    name: str
    plural: str

    @property
    def group(self) -> str:
        return self.api_version.rpartition("/")[0]

    @property
    def version(self) -> str:
        return self.api_version.rpartition("/")[2]


SERVICE_KIND = Kind(v1alpha1.API_VERSION, v1alpha1.KIND, v1alpha1.PLURAL)
POD = Kind("v1", "Pod", "pods")
DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments")
SERVICE = Kind("v1", "Service", "services")
SERVICE_ACCOUNT = Kind("v1", "ServiceAccount", "serviceaccounts")
CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")
REVISION = Kind("apps/v1", "ControllerRevision", "controllerrevisions")
AUTOSCALER = Kind("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
DISRUPTION_BUDGET = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")

OWNED_KINDS = (DEPLOYMENT, SERVICE, SERVICE_ACCOUNT, CONFIG_MAP, REVISION, AUTOSCALER, DISRUPTION_BUDGET)
"""What the operator writes; pods are only watched."""

KINDS = {kind.name: kind for kind in (SERVICE_KIND, POD, *OWNED_KINDS)}


class Ref(NamedTuple):
    """An object, by kind, namespace and name."""

    kind: str
    namespace: str
    name: str


def ref(manifest: Mapping[str, Any]) -> Ref:
    metadata = manifest["metadata"]
    return Ref(manifest["kind"], metadata.get("namespace", ""), metadata["name"])


def key_of(manifest: Mapping[str, Any]) -> Key | None:
    """The InferenceService that the object is, or belongs to by its label."""
    metadata = manifest["metadata"]
    namespace = metadata.get("namespace", "")
    if manifest.get("kind") == v1alpha1.KIND:
        return Key(namespace, metadata["name"])
    name = (metadata.get("labels") or {}).get(SERVICE_LABEL)
    return Key(namespace, name) if name else None


def slot_name(service: str, slot: str) -> str:
    """Name of the Deployment, and of its autoscaler, in a slot."""
    return f"{service}-{slot}"


def hashed_name(service: str, digest: str) -> str:
    """Name of what exists once per revision."""
    return f"{service}-{digest}"


def selector(service: str, slot: str | None = None) -> dict[str, str]:
    """Labels that select the pods of a service, or of one slot of it."""
    labels = {SERVICE_LABEL: service}
    return labels | {SLOT_LABEL: slot} if slot else labels


def digest(value: object) -> str:
    """Ten hexadecimal digits that stand for a JSON value, whatever the order of its keys."""
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()[:10]
