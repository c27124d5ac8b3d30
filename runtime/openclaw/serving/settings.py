"""Where the server's settings come from: the file, and the command line and environment on top of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from openclaw.config import ServerConfig, parse, read_document, shown
from openclaw.errors import ConfigInvalid
from openclaw.storage.uri import from_argument

# The command line's name of a setting -> its place in the file.
_OPTIONS = {
    "name": ("model", "name"),
    "sha256": ("model", "sha256"),
    "warmup_requests": ("model", "warmup"),
    "download_timeout": ("model", "downloadTimeoutSeconds"),
    "port": ("server", "port"),
    "host": ("server", "host"),
    "threads": ("server", "threads"),
    "workers": ("server", "workers"),
    "max_request_bytes": ("server", "maxRequestBytes"),
    "drain_delay": ("server", "drainDelaySeconds"),
    "drain_timeout": ("server", "drainTimeoutSeconds"),
}


def layered(file: Path | None, model: str | None, options: dict[str, Any]) -> ServerConfig:
    """A configuration from a file (or nothing), with what the command line and environment say on top.

    Args:
        file: the configuration file.
        model: a path or URI; a file that names one too is refused.
        options: by the command line's names; None: not given.

    Raises:
        ConfigInvalid: a setting is wrong, or no model is named.
    """
    document = read_document(file) if file else {}
    sections = {key: dict(_section(document, key)) for key in ("model", "server")}
    if model is not None:
        if "uri" in sections["model"]:
            raise ConfigInvalid(f"the model is named twice: {model!r} and model.uri in {file}; name it once")
        uri = from_argument(model, Path.cwd())
        sections["model"]["uri"] = uri.text
        sections["model"].setdefault("name", Path(uri.filename).stem)
    elif file is None:
        raise ConfigInvalid("no model is named: give a path or URI, or --config, or set MODEL_PATH")
    _overlay(sections, options)
    return parse({**document, **sections})


def _overlay(sections: dict[str, dict[str, Any]], options: dict[str, Any]) -> None:
    for option, value in options.items():
        if value is not None:
            section, key = _OPTIONS[option]
            sections[section][key] = {"requests": value} if key == "warmup" else value


def _section(document: dict[str, Any], key: str) -> dict[str, Any]:
    section = document.get(key, {})
    if not isinstance(section, dict):
        raise ConfigInvalid(f"{key} is {shown(section)}; an object is needed")
    return section
