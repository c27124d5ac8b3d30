"""Model URIs: which are understood, what is in them, and how to show one without its secrets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from openclaw.errors import ConfigInvalid

BUCKETS = ("s3", "gs", "az")
WEB = ("http", "https")
SCHEMES = (*BUCKETS, *WEB, "file")


@dataclass(frozen=True)
class ModelUri:
    """A parsed URI.

    Attributes:
        text: as it was given; may hold credentials, so never show it.
        scheme: one of ``SCHEMES``.
        authority: bucket, container, or host with port; empty for files.
        path: the object's key, the file's absolute path, or the URL's path.
    """

    text: str
    scheme: str
    authority: str
    path: str

    @property
    def filename(self) -> str:
        """The last part of the path."""
        return PurePosixPath(self.path).name

    def __str__(self) -> str:
        """For people and logs: without user, password and query (a signed URL's query is a key)."""
        shown = f"{self.scheme}://{self.authority}{'' if self.scheme == 'file' else '/'}{self.path}"
        return f"{shown}?..." if self.scheme in WEB and "?" in self.text else shown

    def __repr__(self) -> str:
        return f"ModelUri({str(self)!r})"


def parse(text: str) -> ModelUri:
    """Parses a model URI.

    Raises:
        ConfigInvalid: says what to write instead.
    """
    scheme, separator, rest = text.partition("://")
    scheme = scheme.lower()
    if not separator:
        raise ConfigInvalid(f"model uri {text!r:.200} has no scheme; write {_examples()}")
    if scheme not in SCHEMES:
        raise ConfigInvalid(f"model uri has the scheme {scheme!r:.40}; allowed: {', '.join(SCHEMES)}")
    if any(character < " " or character == "\x7f" for character in text):
        raise ConfigInvalid(f"model uri {text!r:.200} holds a control character")
    if scheme == "file":
        return _file(text, rest)
    return _bucket(text, scheme, rest) if scheme in BUCKETS else _web(text, scheme)


def from_argument(text: str, folder: Path) -> ModelUri:
    """Parses a URI, or takes anything without a scheme as a path seen from ``folder``."""
    if "://" in text:
        return parse(text)
    path = str(folder / Path(text).expanduser())
    return ModelUri(Path(path).as_uri(), "file", "", path)


def _file(text: str, rest: str) -> ModelUri:
    host, _, path = rest.partition("/")
    if host not in ("", "localhost") or not path:
        raise ConfigInvalid(f"model uri {text!r:.200} is not absolute; write file:///folder/model.onnx")
    return ModelUri(text, "file", "", unquote(f"/{path}"))


def _bucket(text: str, scheme: str, rest: str) -> ModelUri:
    bucket, _, key = rest.partition("/")
    if not bucket or not key or key.endswith("/") or "@" in bucket:
        raise ConfigInvalid(f"model uri names no object; write {scheme}://BUCKET/FOLDER/MODEL.onnx")
    return ModelUri(text, scheme, bucket, key)


def _web(text: str, scheme: str) -> ModelUri:
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigInvalid(f"model uri is not a URL: {error}; write {scheme}://HOST/MODEL.onnx") from error
    if not host or parts.path in ("", "/"):
        raise ConfigInvalid(f"model uri names no host or no file; write {scheme}://HOST/MODEL.onnx")
    shown = f"[{host}]" if ":" in host else host
    return ModelUri(text, scheme, shown if port is None else f"{shown}:{port}", parts.path.removeprefix("/"))


def _examples() -> str:
    return "s3://BUCKET/MODEL.onnx, https://HOST/MODEL.onnx or file:///FOLDER/MODEL.onnx"
