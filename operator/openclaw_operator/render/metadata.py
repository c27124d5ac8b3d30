"""What the metadata of every child has in common."""

from openclaw_operator import names
from openclaw_operator.api.v1alpha1 import API_VERSION, KIND, InferenceService
from openclaw_operator.names import Kind, Manifest


def child(
    service: InferenceService,
    kind: Kind,
    *,
    name: str,
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
) -> Manifest:
    """The head of a child: found by its label, and collected by Kubernetes when its owner goes."""
    metadata: Manifest = {
        "name": name,
        "namespace": service.metadata.namespace,
        "labels": {
            names.MANAGED_BY_LABEL: names.FIELD_MANAGER,
            names.SERVICE_LABEL: service.metadata.name,
            **(labels or {}),
        },
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": service.metadata.name,
                "uid": service.metadata.uid,
                "controller": True,
            }
        ],
    }
    if annotations:
        metadata["annotations"] = annotations
    return {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata}
