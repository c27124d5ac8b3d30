"""What ``openclaw serve`` is told: the JSON file that the operator renders, and nothing else.

Unknown keys are refused. Every error names the key, the value and what is allowed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from openclaw.errors import ConfigInvalid

GIB = 1024**3
MIB = 1024**2


class _Section(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True, strict=True)


class WarmupConfig(_Section):
    """Inferences answered before the model is ready; 0 makes it ready as soon as it is loaded."""

    requests: Annotated[int, Field(ge=0, le=1000)] = 1


class ModelConfig(_Section):
    """Which model, and how far to trust and wait for its store."""

    name: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")]
    uri: Annotated[str, Field(min_length=1, max_length=4096)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    format: Literal["onnx"] = "onnx"
    warmup: WarmupConfig = WarmupConfig()
    download_timeout_seconds: Annotated[int, Field(ge=1, le=86_400)] = 600
    max_bytes: Annotated[int, Field(ge=1)] = 16 * GIB


class ServerOptions(_Section):
    """Where the server listens, how much it runs at once, and how it stops. ``None`` threads: by cores."""

    port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    host: Annotated[str, Field(min_length=1)] = "0.0.0.0"
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    max_request_bytes: Annotated[int, Field(ge=1, le=4 * GIB)] = 64 * MIB
    drain_delay_seconds: Annotated[int, Field(ge=0, le=3600)] = 5
    drain_timeout_seconds: Annotated[int, Field(ge=0, le=3600)] = 45


class ServerConfig(_Section):
    """The whole file."""

    model: ModelConfig
    server: ServerOptions = ServerOptions()


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
