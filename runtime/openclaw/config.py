"""What ``openclaw serve`` is told: the JSON file that the operator renders, and nothing else.

Unknown keys are refused. Every error names the key, the value and what is allowed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from openclaw.errors import ConfigInvalid

GIB = 1024**3
MIB = 1024**2
LEAST_MEMORY_BUDGET = 16 * MIB
"""Less than any server can work with: the buffers of its requests alone take as much."""


class _Section(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True, strict=True)


class WarmupConfig(_Section):
    """Inferences answered before the model is ready; 0 makes it ready as soon as it is loaded."""

    requests: Annotated[int, Field(ge=0, le=1000)] = 1


class BatchingConfig(_Section):
    """Which requests may share a run of the model.

    ``None`` latency target: nothing is delayed, and nothing refused for its age.
    """

    max_batch_size: Annotated[int, Field(ge=1, le=4096)] = 32
    latency_target_seconds: Annotated[float, Field(gt=0, le=3600, strict=False)] | None = None
    max_queue_length: Annotated[int, Field(ge=1, le=1_000_000)] = 1024
    max_queue_bytes: Annotated[int, Field(ge=1, le=64 * GIB)] = 256 * MIB
    padding: Literal["auto", "never"] = "auto"
    mask: Annotated[str, Field(min_length=1, max_length=1024)] | None = None


class ModelConfig(_Section):
    """Which model, and how far to trust and wait for its store.

    ``prepared``: a folder in which ``openclaw prepare`` may have left a faster form of it. ``pinned``: it keeps its
    memory, however long nobody asked for it.
    """

    name: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")]
    uri: Annotated[str, Field(min_length=1, max_length=4096)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    format: Literal["onnx"] = "onnx"
    warmup: WarmupConfig = WarmupConfig()
    download_timeout_seconds: Annotated[int, Field(ge=1, le=86_400)] = 600
    max_bytes: Annotated[int, Field(ge=1)] = 16 * GIB
    prepared: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    pinned: bool = False
    batching: BatchingConfig = BatchingConfig()


class ServerOptions(_Section):
    """Where the server listens, how much it runs at once, what clients may do, and how it stops.

    ``None`` threads: by cores. ``None`` device: the CPU. ``None`` gRPC port: no gRPC. ``None`` memory budget: what the
    process's control group grants, less what is kept for the process itself.
    """

    port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    grpc_port: Annotated[int, Field(ge=0, le=65_535)] | None = None
    host: Annotated[str, Field(min_length=1)] = "0.0.0.0"
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    device: Annotated[str, Field(pattern=r"^(auto|gpu|npu|cpu|[0-9]{1,4})$")] | None = None
    max_request_bytes: Annotated[int, Field(ge=1, le=4 * GIB)] = 64 * MIB
    max_inference_seconds: Annotated[int, Field(ge=1, le=86_400)] = 300
    model_control: bool = False
    model_folder: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    shared_memory: bool = False
    memory_budget_bytes: Annotated[int, Field(ge=LEAST_MEMORY_BUDGET)] | None = None
    drain_delay_seconds: Annotated[int, Field(ge=0, le=3600)] = 5
    drain_timeout_seconds: Annotated[int, Field(ge=0, le=3600)] = 45


class ServerConfig(_Section):
    """The whole file."""

    model: ModelConfig
    models: Annotated[tuple[ModelConfig, ...], Field(strict=False)] = ()
    server: ServerOptions = ServerOptions()

    @property
    def all_models(self) -> tuple[ModelConfig, ...]:
        """Every model, the first first."""
        return (self.model, *self.models)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [model.name for model in self.all_models]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two models are called {min(twice)!r}; each needs a name of its own")
        if self.server.workers > 1 and (self.server.model_control or self.server.shared_memory):
            raise ValueError(
                "server.modelControl and server.sharedMemory need server.workers to be 1: "
                "a request reaches one worker, and the others would not hear of it"
            )
        if self.server.workers > 1 and self.server.grpc_port == 0:
            raise ValueError("server.grpcPort is 0 with several workers, each of which would get another; name a port")
        if self.server.model_folder is not None and not self.server.model_control:
            raise ValueError("server.modelFolder needs server.modelControl: nothing else loads from it")
        return self


def read_document(path: Path) -> dict[str, Any]:
    """Reads the configuration file as JSON, not validated yet.

    Raises:
        ConfigInvalid: the file cannot be read, or is not a JSON object.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigInvalid(f"the configuration file {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigInvalid(f"the configuration file {path} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise ConfigInvalid(f"the configuration file {path} holds {shown(document)}, not an object")
    return document


def parse(document: dict[str, Any]) -> ServerConfig:
    """Validates a configuration document with the file's camelCase keys.

    Raises:
        ConfigInvalid: lists every wrong key with its value and what is allowed.
    """
    try:
        return ServerConfig.model_validate(document)
    except ValidationError as error:
        sentences = [_sentence(dict(problem)) for problem in error.errors(include_url=False)]
        raise ConfigInvalid("; ".join(sentences)) from error


def _sentence(problem: dict[str, Any]) -> str:
    key = ".".join(str(part) for part in problem["loc"]) or "the configuration"
    if problem["type"] == "extra_forbidden":
        return f"{key} is not a known key; allowed here: {', '.join(_allowed(problem['loc']))}"
    if problem["type"] == "missing":
        return f"{key} is required"
    text = str(problem["msg"])
    return f"{key} is {shown(problem['input'])}: {text[:1].lower()}{text[1:]}"


def _allowed(location: tuple[str | int, ...]) -> list[str]:
    section: Any = ServerConfig
    for part in location[:-1]:
        field = next(f for f in section.model_fields.values() if f.alias == part)
        section = field.annotation
    return [str(field.alias) for field in section.model_fields.values()]


def shown(value: object) -> str:
    """A value as JSON, cut to what fits into a sentence."""
    text = json.dumps(value, default=repr)
    return text if len(text) <= 80 else text[:77] + "..."
