"""`InferenceService`, version `v1alpha1`: what a user writes and what the operator answers.

The CustomResourceDefinition is generated from these models and from those of `spec`.
"""

from typing import Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, ValidationError

from openclaw_operator.api.base import ApiModel, Rule, explain, matches
from openclaw_operator.api.spec import InferenceServiceSpec
from openclaw_operator.errors import Terminal

GROUP = "openclaw.io"
VERSION = "v1alpha1"
API_VERSION: Literal["openclaw.io/v1alpha1"] = "openclaw.io/v1alpha1"
KIND: Literal["InferenceService"] = "InferenceService"
PLURAL = "inferenceservices"

MAX_NAME = 50  # leaves room for "-" and a hash of ten within the 63 characters of a label
_NAME = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"

Tier = Literal["packed", "mapped", "evicted"]
"""Where the weights of a model are."""


class Condition(ApiModel):
    """One aspect of the service's state, as metav1.Condition has it."""

    type: str = Field(max_length=316)
    """Which aspect: Ready, Available, ModelLoaded or Progressing."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: str = Field(max_length=1024)
    """Why, in one CamelCase word for programs."""
    message: str = Field(default="", max_length=32768)
    """Why, in a sentence for people."""
    last_transition_time: str = Field(json_schema_extra={"format": "date-time"})
    """When `status` last changed."""
    observed_generation: int = Field(default=0, ge=0)
    """Generation of the InferenceService that this was said of."""


class TrafficShare(ApiModel):
    """The part of the requests that one revision gets."""

    slot: str
    """Slot of the Deployment: a or b."""
    revision: str
    """Revision that the slot runs."""
    percent: int = Field(ge=0, le=100)
    """Percent of the requests; all shares sum to 100."""


class Optimization(ApiModel):
    """What came of optimizing the model for the nodes of one kind."""

    outcome: Literal["Optimized", "NothingFaster", "Failed"]
    """Optimized: a faster form is served. NothingFaster: the model as it is, for nothing is faster. Failed: the model
    as it is, since it could not be optimized."""
    node_type: str = Field(max_length=200)
    """Kind of the nodes: processor, what decides about speed of its instructions, and threads of one inference."""
    mode: str = Field(max_length=16)
    """What was asked for: fp32 or auto."""
    form: str | None = Field(default=None, max_length=100)
    """How the form that is served was made, as `openclaw optimize` calls it."""
    precision: str | None = Field(default=None, max_length=16)
    """Precision of that form."""
    latency_percent: int | None = Field(default=None, ge=0)
    """Latency of one inference, in percent of onnxruntime's default on the model as it was."""
    accuracy: str | None = Field(default=None, max_length=200)
    """Of a form of lower precision, what it reached on the samples that judge, as in top1 0.9990."""
    nodes_before: int | None = Field(default=None, ge=0)
    """Operators in the graph of the model as it was."""
    nodes_after: int | None = Field(default=None, ge=0)
    """Operators in the graph of the form."""
    size_percent: int | None = Field(default=None, ge=0)
    """Size of the form's file, in percent of the model's as it was."""
    reason: str = Field(default="", max_length=1000)
    """Why, in a sentence for people."""
    pods: int = Field(default=0, ge=0)
    """Pods of the current revision for which this holds."""
    cached: int = Field(default=0, ge=0)
    """Of these, how many found the result of another one."""


class TierShare(ApiModel):
    """The pods that have the model's weights in one tier."""

    tier: Tier
    """packed: in memory, arranged for the kernels. mapped: read from disk as they are needed, since they do not fit in
    memory. evicted: on disk until the next request."""
    pods: int = Field(ge=1)
    """How many they are."""


class ModelStatus(ApiModel):
    """What became of the model, before it was served and in the pods that serve it."""

    optimization: list[Optimization] = Field(default_factory=list, max_length=16)
    """What came of spec.runtime.optimize, one entry for each kind of nodes that the pods run on."""
    tiers: list[TierShare] = Field(default_factory=list, json_schema_extra={"mapKeys": ["tier"]})
    """Where the model's weights are, by the ready pods of the current revision, as they last said; a pod that cannot be
    asked is not counted."""


class InferenceServiceStatus(ApiModel):
    """What the operator observed."""

    observed_generation: int = Field(default=0, ge=0)
    """Generation of the InferenceService that this status is about."""
    conditions: list[Condition] = Field(default_factory=list, json_schema_extra={"mapKeys": ["type"]})
    """State of the service by aspect. Ready is True only for this generation, with an inference answered by every
    counted pod."""
    url: str | None = None
    """Where the service answers."""
    replicas: int = Field(default=0, ge=0)
    """Pods that exist."""
    ready_replicas: int = Field(default=0, ge=0)
    """Pods of the current revision that answered an inference."""
    selector: str | None = None
    """Label selector of the pods, for the scale subresource."""
    revision: str | None = None
    """Revision being served or rolled out."""
    traffic: list[TrafficShare] = Field(default_factory=list, json_schema_extra={"mapKeys": ["slot"]})
    """Which revision gets how many of the requests."""
    model: ModelStatus | None = None
    """What became of the model, before it was served and in the pods that serve it."""


class Metadata(ApiModel):
    """The part of an object's metadata that decisions are made from."""

    name: str
    namespace: str
    uid: str = ""
    generation: int = 1
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None

    model_config = ConfigDict(extra="ignore")


class InferenceService(ApiModel):
    """A model, served."""

    api_version: Literal["openclaw.io/v1alpha1"] = API_VERSION
    kind: Literal["InferenceService"] = KIND
    metadata: Metadata
    spec: InferenceServiceSpec
    status: dict[str, Any] = Field(default_factory=dict)
    """As last written; free in form, since an older operator may have written it."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel=f"self.metadata.name.size() <= {MAX_NAME}",
            message=(
                f"metadata.name must have at most {MAX_NAME} characters, "
                "since the names of its children add a hash: shorten it"
            ),
            holds=lambda service: len(service.metadata.name) <= MAX_NAME,
        ),
        Rule(
            cel=f"self.metadata.name.matches('{_NAME}')",
            message=(
                "metadata.name must begin with a letter and hold only lowercase letters, digits and '-': "
                "it names a Service"
            ),
            holds=lambda service: matches(_NAME, service.metadata.name),
        ),
    )

    @property
    def model_name(self) -> str:
        """Name of the model in the path of requests."""
        return self.spec.model.name or self.metadata.name

    @classmethod
    def parse(cls, manifest: dict[str, Any]) -> Self:
        """Validates a manifest.

        Raises:
            Terminal: reason `InvalidSpec`; the message names each field, its value and what is allowed.
        """
        try:
            return cls.model_validate(manifest)
        except ValidationError as invalid:
            raise Terminal("InvalidSpec", explain(invalid)) from invalid
