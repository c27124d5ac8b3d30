"""ControllerRevision: what a revision was rolled out with, kept word for word.

A revision that exists is applied from here and never rendered anew, so an operator with other defaults or another
default image restarts no pod. This is also what a rollback applies.
"""

from dataclasses import dataclass

from openclaw_operator import names
from openclaw_operator.api.v1alpha1 import InferenceService
from openclaw_operator.config import Config
from openclaw_operator.names import Manifest
from openclaw_operator.render import server_config
from openclaw_operator.render.metadata import child
from openclaw_operator.render.pod import pod_template


@dataclass(frozen=True, slots=True)
class Revision:
    """One content of a service's pods.

    Attributes:
        hash: Hash of the template; names the revision.
        number: Order in which revisions became current, from 1.
        spec_hash: Hash of the part of the spec that it was rendered from.
        default_image: The image pinned for services that name none.
        template: The pod template, with the revision's label.
        server_config: The server's configuration file.
    """

    hash: str
    number: int
    spec_hash: str
    default_image: str
    template: Manifest
    server_config: str

    @classmethod
    def from_manifest(cls, manifest: Manifest) -> "Revision":
        metadata = manifest["metadata"]
        annotations = metadata.get("annotations") or {}
        return cls(
            hash=(metadata.get("labels") or {}).get(names.REVISION_LABEL, ""),
            number=manifest["revision"],
            spec_hash=annotations.get(names.SPEC_ANNOTATION, ""),
            default_image=annotations.get(names.IMAGE_ANNOTATION, ""),
            template=manifest["data"]["template"],
            server_config=manifest["data"]["serverConfig"],
        )


def spec_hash(service: InferenceService) -> str:
    """Hash of the part of the spec that pods are made from.

    Fields at their default are left out: a field that a later version adds changes no hash.
    """
    parts = {"model", "runtime", "resources", "probes", "pod_template"}
    return names.digest(service.spec.model_dump(by_alias=True, include=parts, exclude_defaults=True, mode="json"))


def new_revision(service: InferenceService, config: Config, *, number: int, default_image: str) -> Revision:
    """Renders the revision that the service's spec asks for."""
    text = server_config.server_config(service)
    template = pod_template(
        service,
        config,
        slot="a",
        image=(service.spec.runtime and service.spec.runtime.image) or default_image,
        config_map=server_config.config_map_name(service.metadata.name, text),
    )
    digest = names.digest(template)
    template["metadata"]["labels"][names.REVISION_LABEL] = digest
    return Revision(
        hash=digest,
        number=number,
        spec_hash=spec_hash(service),
        default_image=default_image,
        template=template,
        server_config=text,
    )


def controller_revision(service: InferenceService, revision: Revision) -> Manifest:
    head = child(
        service,
        names.REVISION,
        name=names.hashed_name(service.metadata.name, revision.hash),
        labels={names.REVISION_LABEL: revision.hash},
        annotations={
            names.SPEC_ANNOTATION: revision.spec_hash,
            names.IMAGE_ANNOTATION: revision.default_image,
        },
    )
    data = {"template": revision.template, "serverConfig": revision.server_config}
    return {**head, "revision": revision.number, "data": data}
