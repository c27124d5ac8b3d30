"""The groups of `spec`: what a user writes.

A group or field that does not work yet is reserved: it is refused with a sentence that says what to write instead.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue

from openclaw_operator.api import quantity
from openclaw_operator.api.base import ApiModel, ReservedField, Rule, matches, reserved
from openclaw_operator.api.optimize import Optimize
from openclaw_operator.api.uri import readable


def _int_or_string(value: object) -> str | int:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError('write a whole number, or a string, as in 2 or "500m"')
    return value


def _quantity(value: object) -> str | int:
    given = _int_or_string(value)
    quantity.parse(given)
    return given


# Validated before the union is: a union says of each of its members why the value is none of it.
Quantity = Annotated[str | int, BeforeValidator(_quantity), Field(json_schema_extra={"quantity": True})]
IntOrPercent = Annotated[int | str, BeforeValidator(_int_or_string), Field(json_schema_extra={"intOrPercent": True})]
OpenObject = Annotated[dict[str, JsonValue], Field(json_schema_extra={"preserve": True})]
_PERCENT = "^([0-9]|[1-9][0-9]|100)%$"
Seconds = Annotated[int, Field(ge=1, le=86400)]


def _is_amount(value: int | str) -> bool:
    return value >= 0 if isinstance(value, int) else matches(_PERCENT, value)


class Credentials(ApiModel):
    """Where the object store's credentials lie; the operator itself never reads them."""

    secret_name: str = Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    """Secret in the same namespace, given to the server as environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
    AWS_ENDPOINT_URL, AWS_REGION, GOOGLE_*, AZURE_*."""


class Warmup(ApiModel):
    """Inferences that are run before a pod counts as ready."""

    requests: int = Field(default=1, ge=0, le=1000)
    """How many. 0 skips them: the pod is then ready once the model is loaded, without proof that it answers."""


class Model(ApiModel):
    """The model to serve."""

    uri: str = Field(min_length=1, max_length=2048)
    """Where the model lies: s3://BUCKET/KEY, gs://BUCKET/KEY, az://CONTAINER/KEY, https://HOST/PATH, http://HOST/PATH
    or file:///PATH in the container."""
    name: str | None = Field(default=None, max_length=128, pattern=r"^[A-Za-z0-9]([-A-Za-z0-9._]*[A-Za-z0-9])?$")
    """Name in the request's path, /v2/models/NAME/infer. Default: the name of the InferenceService."""
    sha256: str | None = Field(default=None, max_length=64, pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of the file, 64 lowercase hexadecimal digits. A file with another digest is not served."""
    format: Literal["onnx"] = "onnx"
    """Format of the file."""
    credentials: Credentials | None = None
    """Credentials of the object store."""
    warmup: Warmup | None = None
    """Inferences run before a pod counts as ready. Default: one."""
    precision: ReservedField = reserved("serve a model that already has the precision", kind="string")

    rules: ClassVar[tuple[Rule, ...]] = readable("uri", "model.onnx")


class EnvVar(ApiModel):
    """An environment variable of the server, as Kubernetes has it."""

    name: str = Field(min_length=1, max_length=256, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Name of the variable."""
    value: str | None = Field(default=None, max_length=8192)
    """Its value."""
    value_from: OpenObject | None = None
    """Where the value comes from: secretKeyRef, configMapKeyRef, fieldRef or resourceFieldRef."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!(has(self.value) && has(self.valueFrom))",
            message="value and valueFrom exclude each other: keep one of them",
            holds=lambda env: env.value is None or env.value_from is None,
        ),
    )


def _names_differ(variables: list[EnvVar]) -> list[EnvVar]:
    """As the API server enforces it on a list with keys."""
    given = [variable.name for variable in variables]
    twice = sorted({name for name in given if given.count(name) > 1})
    if twice:
        raise ValueError(f"{', '.join(twice)} is given twice: keep one of them")
    return variables


class Batching(ApiModel):
    """Which requests may share a run of the model. Nothing waits for others unless that was measured to pay."""

    max_batch_size: int | None = Field(default=None, ge=1, le=4096)
    """Most rows in one run of the model; 1 switches batching off. Default: 32."""
    latency_target_milliseconds: int | None = Field(default=None, ge=1, le=3_600_000)
    """Within which an answer is worth having: a request that would be later is refused at once (HTTP 429), and a batch
    may wait for more as long as it is met. Default: none; nothing is delayed, and nothing refused for its age."""
    max_queue_length: int | None = Field(default=None, ge=1, le=1_000_000)
    """Requests that may wait in a pod; further ones are refused. Default: 1024."""
    padding: Literal["auto", "never"] | None = None
    """Whether sequences of different lengths share a run, filled up to the longest, where a mask makes that exact.
    Default: auto."""
    mask: str | None = Field(default=None, min_length=1, max_length=1024)
    """The input that is 0 where a sequence is filled up, when its name is not one of the usual ones."""


class Runtime(ApiModel):
    """The server that runs in each pod."""

    image: str | None = Field(default=None, min_length=1, max_length=512)
    """Image of the server. Default: the runtime image that the operator was installed with, pinned when the service
    is first rolled out: an upgrade of the operator restarts no pod."""
    workers: int | None = Field(default=None, ge=1, le=64)
    """Processes in each pod that serve the model. Default: 1."""
    threads: int | None = Field(default=None, ge=1, le=256)
    """Threads of one inference. Default: the cores that the container is granted, divided by the workers."""
    env: Annotated[list[EnvVar], AfterValidator(_names_differ)] | None = Field(
        default=None, max_length=64, json_schema_extra={"mapKeys": ["name"]}
    )
    """Environment of the server."""
    args: list[Annotated[str, Field(max_length=1024)]] | None = Field(default=None, max_length=32)
    """Further arguments of `openclaw serve`."""
    batching: Batching | None = None
    """Which requests may share a run of the model."""
    grpc: bool | None = None
    """Whether pods answer gRPC as well, on port 8081 of the Service. Default: false."""
    optimize: Optimize | None = None
    """Whether the model is made faster for the nodes that it runs on, before it is served. Default: it is not."""


def _within_limits(resources: "Resources") -> bool:
    limits = resources.limits or {}
    return all(
        quantity.parse(value) <= quantity.parse(limits[key])
        for key, value in (resources.requests or {}).items()
        if key in limits
    )


class Resources(ApiModel):
    """What each pod asks of its node and what it may use at most, as Kubernetes has it."""

    requests: dict[str, Quantity] | None = Field(default=None, max_length=16)
    """What the scheduler sets aside. Default: the operator's, 500m of cpu and 512Mi of memory."""
    limits: dict[str, Quantity] | None = Field(default=None, max_length=16)
    """What the pod may use at most. Default: no limit."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel=(
                "!has(self.requests) || !has(self.limits) || self.requests.all(k, !(k in self.limits) || "
                "quantity(string(self.requests[k])).compareTo(quantity(string(self.limits[k]))) <= 0)"
            ),
            message="requests must not exceed limits: lower the request or raise the limit",
            holds=_within_limits,
        ),
    )


class ScalingTarget(ApiModel):
    """The load that replicas are added or removed to keep, in percent of `resources.requests`."""

    cpu_utilization: int | None = Field(default=None, ge=1, le=1000)
    """Percent of the requested CPU. Default: 80, when no other target is given."""
    memory_utilization: int | None = Field(default=None, ge=1, le=1000)
    """Percent of the requested memory."""
    requests_per_second: ReservedField = reserved("scale on cpuUtilization", kind="integer")
    concurrency: ReservedField = reserved("scale on cpuUtilization", kind="integer")
    latency_milliseconds: ReservedField = reserved("scale on cpuUtilization", kind="integer")


class ScalingPolicy(ApiModel):
    """One limit on how fast the number of replicas changes, as HorizontalPodAutoscaler v2 has it."""

    type: Literal["Pods", "Percent"]
    """Whether `value` counts pods or percent of them."""
    value: int = Field(ge=1, le=100000)
    """Largest change within the period."""
    period_seconds: int = Field(ge=1, le=1800)
    """Length of the period in seconds."""


class ScalingRules(ApiModel):
    """How fast replicas are added, or removed, as HorizontalPodAutoscaler v2 has it."""

    stabilization_window_seconds: int | None = Field(default=None, ge=0, le=3600)
    """Seconds over which the most cautious recommendation wins."""
    select_policy: Literal["Max", "Min", "Disabled"] | None = None
    """Which policy wins when several apply."""
    policies: list[ScalingPolicy] | None = Field(default=None, max_length=8)
    """Limits on the change."""


class ScalingBehavior(ApiModel):
    """How fast replicas follow the load."""

    scale_up: ScalingRules | None = None
    """Adding replicas. Default: Kubernetes'."""
    scale_down: ScalingRules | None = None
    """Removing replicas. Default: Kubernetes'."""


class Scaling(ApiModel):
    """How many replicas serve, and what makes them more or fewer."""

    min_replicas: int | None = Field(default=None, ge=1, le=1000)
    """Fewest replicas. Default: 1."""
    max_replicas: int | None = Field(default=None, ge=1, le=1000)
    """Most replicas; equal to minReplicas switches scaling off. Default: 4, or minReplicas where that is more."""
    target: ScalingTarget | None = None
    """The load to keep. Default: 80 percent of the requested CPU."""
    behavior: ScalingBehavior | None = None
    """How fast replicas follow the load. Default: Kubernetes'."""
    provider: ReservedField = reserved("the HorizontalPodAutoscaler of Kubernetes is used", kind="string")
    scale_to_zero: ReservedField = reserved("set suspend: true while the service is not needed")
    warm_pool: ReservedField = reserved("raise minReplicas")
    schedules: ReservedField = reserved("set suspend or minReplicas from a CronJob", kind="array")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.maxReplicas) || (has(self.minReplicas) ? self.minReplicas : 1) <= self.maxReplicas",
            message="minReplicas must not exceed maxReplicas: raise maxReplicas or lower minReplicas",
            holds=lambda scaling: scaling.max_replicas is None or (scaling.min_replicas or 1) <= scaling.max_replicas,
        ),
    )


class Probe(ApiModel):
    """Timing of one probe, as Kubernetes has it. The path is the server's own and cannot be changed."""

    period_seconds: Seconds | None = None
    """Seconds between two probes."""
    timeout_seconds: Seconds | None = None
    """Seconds after which one probe counts as failed."""
    failure_threshold: int | None = Field(default=None, ge=1, le=100000)
    """Failures in a row after which the probe counts as failed."""


class Probes(ApiModel):
    """When a pod counts as started, ready and alive. Ready means: the model answered an inference."""

    startup: Probe | None = None
    """Time to download, load and warm up the model: periodSeconds x failureThreshold. Default: 1 s x 600."""
    readiness: Probe | None = None
    """Whether the pod gets requests. Default: every 5 s, 3 failures."""
    liveness: Probe | None = None
    """Whether the server is restarted. Default: every 10 s, 6 failures."""


def _amount(alias: str, name: str) -> Rule:
    return Rule(
        cel=(
            f"!has(self.{alias}) || (type(self.{alias}) == int ? int(self.{alias}) >= 0 : "
            f"string(self.{alias}).matches('{_PERCENT}'))"
        ),
        message=f"{alias} must be a number of pods or a percentage up to 100%, as in 1 or 25%",
        holds=lambda disruption: getattr(disruption, name) is None or _is_amount(getattr(disruption, name)),
    )


class Disruption(ApiModel):
    """How many pods a drain of nodes may take away at a time: the PodDisruptionBudget."""

    min_available: IntOrPercent | None = None
    """Pods, or percent of them, that must stay."""
    max_unavailable: IntOrPercent | None = None
    """Pods, or percent of them, that may be missing. Default: 1."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!(has(self.minAvailable) && has(self.maxUnavailable))",
            message="minAvailable and maxUnavailable exclude each other: keep one of them",
            holds=lambda disruption: disruption.min_available is None or disruption.max_unavailable is None,
        ),
        _amount("minAvailable", "min_available"),
        _amount("maxUnavailable", "max_unavailable"),
    )


class PodMetadata(ApiModel):
    """Labels and annotations of the pods, beside the operator's own."""

    labels: dict[str, str] | None = None
    """Labels; those that the operator finds pods by stay as they are."""
    annotations: dict[str, str] | None = None
    """Annotations."""


class PodTemplate(ApiModel):
    """What is merged over the rendered template of the pods."""

    metadata: PodMetadata | None = None
    """Labels and annotations of the pods, beside the operator's own."""
    spec: OpenObject | None = None
    """Specification of a pod, as Kubernetes has it; null removes a field."""


class InferenceServiceSpec(ApiModel):
    """What to serve and how."""

    model: Model
    """The model to serve."""
    runtime: Runtime | None = None
    """The server that runs in each pod."""
    resources: Resources | None = None
    """What each pod asks of its node and what it may use at most."""
    scaling: Scaling | None = None
    """How many replicas serve, and what makes them more or fewer."""
    probes: Probes | None = None
    """When a pod counts as started, ready and alive."""
    disruption: Disruption | None = None
    """How many pods a drain of nodes may take away at a time."""
    pod_template: PodTemplate | None = None
    """metadata and spec of a pod, merged over the rendered template last: for everything that has no field of its
    own. Lists of named things are merged by name."""
    suspend: bool = False
    """Stops the service: no pods, no cost; everything else stays."""
    gpu: ReservedField = reserved("request the device under resources.limits, as in nvidia.com/gpu: 1")
    rollout: ReservedField = reserved("changes are rolled out as rolling updates")
    traffic: ReservedField = reserved("point a Gateway or an Ingress at the Service of this name")
    placement: ReservedField = reserved("put nodeSelector, tolerations and affinity into podTemplate.spec")
    security: ReservedField = reserved("pods are restricted already; loosen them in podTemplate.spec")
    monitoring: ReservedField = reserved("scrape /metrics of the pods")
    features: ReservedField = reserved("remove it")
