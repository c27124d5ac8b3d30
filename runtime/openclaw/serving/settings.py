"""Where the server's settings come from: the file, and the command line and environment on top of it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from openclaw.config import ServerConfig, parse, read_document, shown
from openclaw.errors import ConfigInvalid
from openclaw.storage.uri import from_argument

# The command line's name of a setting -> its place in the file.
_OPTIONS = {
    "name": ("model", "name"),
    "sha256": ("model", "sha256"),
    "warmup_requests": ("model", "warmup", "requests"),
    "download_timeout": ("model", "downloadTimeoutSeconds"),
    "max_batch_size": ("model", "batching", "maxBatchSize"),
    "latency_target": ("model", "batching", "latencyTargetSeconds"),
    "prepared": ("model", "prepared"),
    "port": ("server", "port"),
    "grpc_port": ("server", "grpcPort"),
    "host": ("server", "host"),
    "threads": ("server", "threads"),
    "device": ("server", "device"),
    "workers": ("server", "workers"),
    "max_request_bytes": ("server", "maxRequestBytes"),
    "model_control": ("server", "modelControl"),
    "model_folder": ("server", "modelFolder"),
    "shared_memory": ("server", "sharedMemory"),
    "memory_budget": ("server", "memoryBudgetBytes"),
    "drain_delay": ("server", "drainDelaySeconds"),
    "drain_timeout": ("server", "drainTimeoutSeconds"),
}

_OF_ONE_MODEL = ("name", "sha256")


def layered(file: Path | None, models: Sequence[str], options: dict[str, Any]) -> ServerConfig:
    """A configuration from a file (or nothing), with what the command line and environment say on top.

    Args:
        file: the configuration file.
        models: paths or URIs; a file that names one too is refused. What ``options`` say of the model is true of all,
            but for its name and digest.
        options: by the command line's names; None: not given.

    Raises:
        ConfigInvalid: a setting is wrong, or no model is named.
    """
    document = read_document(file) if file else {}
    sections = {key: copy.deepcopy(_section(document, key)) for key in ("model", "server")}
    if models:
        if "uri" in sections["model"]:
            raise ConfigInvalid(f"the model is named twice: {models[0]!r} and model.uri in {file}; name it once")
        sections["model"] |= _named(models[0], sections["model"])
    elif file is None:
        raise ConfigInvalid("no model is named: give a path or URI, or --config, or set MODEL_PATH")
    for option, value in options.items():
        if value is not None:
            _put(sections, _OPTIONS[option], value)
    if len(models) < 2:
        return parse({**document, **sections})
    if single := next((option for option in _OF_ONE_MODEL if options.get(option) is not None), None):
        raise ConfigInvalid(f"--{single} is given with {len(models)} models; give it with one")
    common = {key: value for key, value in sections["model"].items() if key not in {"name", "uri"}}
    others = [*document.get("models", []), *({**common, **_named(model, {})} for model in models[1:])]
    return parse({**document, **sections, "models": others})


def _named(model: str, section: dict[str, Any]) -> dict[str, Any]:
    """Where a model is, and its name where ``section`` gives none."""
    uri = from_argument(model, Path.cwd())
    return {"uri": uri.text, "name": section.get("name", Path(uri.filename).stem)}


def _put(sections: dict[str, Any], place: tuple[str, ...], value: Any) -> None:
    *path, last = place
    section: Any = sections
    for key in path:
        section = section.setdefault(key, {})
        if not isinstance(section, dict):
            return  # the file's mistake, which is told with all others
    section[last] = value


def _section(document: dict[str, Any], key: str) -> dict[str, Any]:
    section = document.get(key, {})
    if not isinstance(section, dict):
        raise ConfigInvalid(f"{key} is {shown(section)}; an object is needed")
    return section
