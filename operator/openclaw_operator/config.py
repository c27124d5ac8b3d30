"""Settings of the operator, read once from its environment."""

import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from openclaw_operator.api import quantity
from openclaw_operator.api.uri import STORES, has_scheme, is_absolute

PREFIX = "OPENCLAW_"


class ConfigError(ValueError):
    """A setting is not usable; the message names the variable, its value and what is allowed."""


def _words(value: object) -> object:
    return tuple(word.strip() for word in value.split(",") if word.strip()) if isinstance(value, str) else value


def _quantity(value: str) -> str:
    if quantity.parse(value) < 0:
        raise ValueError("must not be negative")
    return value


def _template(value: str) -> str:
    try:
        value.format(namespace="namespace", name="name")
    except (LookupError, ValueError, AttributeError) as error:
        raise ValueError("may hold {name} and {namespace}, and no other braces") from error
    return value


def _store(value: str) -> str:
    if value and ("\n" in value or not (has_scheme(value, STORES) and is_absolute(value))):
        raise ValueError("must begin with one of s3://, gs://, az:// or file:///, as in s3://my-bucket/optimized")
    return value


def _explained(error: ErrorDetails) -> str:
    variable = PREFIX + str(error["loc"][0]).upper()
    return f"{variable}={error['input']!r}: {error['msg'].removeprefix('Value error, ')}"


class Config(BaseModel):
    """Settings of the operator. Each is read from the variable of its name in capitals, behind `OPENCLAW_`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    runtime_image: str = Field(default="openclaw-runtime:0.1.0", min_length=1)
    """Image for services that name none; pinned at their first rollout."""
    image_pull_policy: str = Field(default="", pattern="^(|Always|IfNotPresent|Never)$")
    """Pull policy of the server's container, and of the optimizer's; empty leaves the choice to Kubernetes."""
    optimizer_image: str = Field(default="openclaw-optimizer:0.1.0", min_length=1)
    """Image of the step that optimizes a model before it is served, for services with spec.runtime.optimize."""
    optimizer_cache_uri: Annotated[str, AfterValidator(_store)] = ""
    """Where results of that step are shared, for services that name no place of their own: s3://, gs://, az:// or
    file:///. Empty: such a service has to name one."""
    default_cpu: Annotated[str, AfterValidator(_quantity)] = "500m"
    """CPU request of pods whose service names neither a request nor a limit."""
    default_memory: Annotated[str, AfterValidator(_quantity)] = "512Mi"
    """Memory request of pods whose service names neither a request nor a limit."""
    url_template: Annotated[str, AfterValidator(_template)] = "http://{name}.{namespace}.svc"
    """Where a service answers, with {name} and {namespace} for its own."""
    log_format: Literal["text", "json"] = "text"
    """How log lines are written."""
    revision_history_limit: int = Field(default=10, ge=1, le=100)
    """Revisions kept beside the current one."""
    watch_namespaces: Annotated[tuple[str, ...], BeforeValidator(_words)] = ()
    """Namespaces to watch, separated by commas; empty means all."""
    workers: int = Field(default=16, ge=1, le=256)
    """Services reconciled at the same time."""
    resync_seconds: float = Field(default=600, ge=10)
    """How often everything is listed anew, in case a watch lost an event."""
    overdue_seconds: float = Field(default=120, ge=5)
    """How late the oldest due service may be before the operator counts as stuck."""
    health_port: int = Field(default=8081, ge=0, le=65535)
    """Port of /healthz and /readyz."""
    metrics_port: int = Field(default=8082, ge=0, le=65535)
    """Port of /metrics."""
    lease_name: str = Field(default="openclaw-operator", min_length=1, max_length=63)
    """Lease that the active replica holds."""
    lease_namespace: str = ""
    """Namespace of the Lease; empty means the operator's own."""
    lease_seconds: int = Field(default=15, ge=3, le=300)
    """Seconds after which another replica may take over a Lease that is not renewed."""

    def url(self, *, namespace: str, name: str) -> str:
        """Where a service answers."""
        return self.url_template.format(namespace=namespace, name=name)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Reads every setting that is set.

        Raises:
            ConfigError: a value is not allowed.
        """
        given = os.environ if environment is None else environment
        values: dict[str, Any] = {
            name: given[PREFIX + name.upper()] for name in cls.model_fields if given.get(PREFIX + name.upper())
        }
        try:
            return cls.model_validate(values)
        except ValidationError as invalid:
            raise ConfigError("; ".join(map(_explained, invalid.errors(include_url=False)))) from invalid
