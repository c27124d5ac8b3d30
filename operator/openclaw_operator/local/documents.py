"""YAML files -> InferenceServices, with errors that name the file, the line and the field."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from openclaw_operator.api import v1alpha1
from openclaw_operator.api.base import explain
from openclaw_operator.api.v1alpha1 import InferenceService
from openclaw_operator.local.failures import DocumentError
from openclaw_operator.names import Key, Manifest

DEFAULT_NAMESPACE = "default"
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_URIS = (("model", "uri"), ("runtime", "optimize", "calibration", "uri"), ("runtime", "optimize", "cacheUri"))
_GIVEN_METADATA = ("name", "namespace", "labels", "annotations")


@dataclass(frozen=True, slots=True)
class Document:
    """One service, as declared in a file.

    Attributes:
        manifest: What to apply: its namespace filled in, its relative file URIs made absolute.
        file: Where it stands.
        line: Its first line, from 1.
    """

    manifest: Manifest
    file: Path
    line: int

    @property
    def key(self) -> Key:
        metadata = self.manifest["metadata"]
        return Key(metadata["namespace"], metadata["name"])


def read(files: Iterable[Path]) -> list[Document]:
    """The services declared in `files`, in their order.

    Raises:
        DocumentError: a file cannot be read, is not YAML, or declares something that cannot be served.
    """
    documents: list[Document] = []
    for file in files:
        try:
            text = file.read_text(encoding="utf-8")
        except OSError as error:
            raise DocumentError(f"{file}: cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise DocumentError(f"{file}: is not text: byte {error.start} is not UTF-8") from error
        documents += parse(text, file=file)
    declared: dict[Key, Document] = {}
    for document in documents:
        first = declared.setdefault(document.key, document)
        if first is not document:
            place = f"{document.file}:{document.line}"
            raise DocumentError(f"{place}: {document.key} is declared already in {first.file}:{first.line}: rename one")
    return documents


def parse(text: str, *, file: Path) -> list[Document]:
    """The services declared in a text.

    Args:
        text: YAML of one or more documents.
        file: Absolute path that the text was read from: for messages, and for relative file URIs.

    Raises:
        DocumentError: as `read`.
    """
    try:
        nodes = list(_nodes(text))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise DocumentError(f"{file}:{line}: is not YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise DocumentError(f"{file}: is not YAML: {error}") from error
    documents = [_document(node, value, file=file) for node, value in nodes if value is not None]
    if not documents:
        raise DocumentError(f"{file}: declares no InferenceService: write one, as in `openclaw local up --help`")
    return documents


def _nodes(text: str) -> Iterator[tuple[yaml.Node, Any]]:
    loader = yaml.SafeLoader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            assert node is not None
            _refuse_duplicates(node)
            yield node, loader.construct_document(node)
    finally:
        loader.dispose()


def _refuse_duplicates(node: yaml.Node) -> None:
    """YAML forbids a key that stands twice; the parser would let the last one win silently."""
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(None, None, f"the key {key.value!r} stands twice", key.start_mark)
                seen.add(key.value)
            _refuse_duplicates(value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_duplicates(item)


def _document(node: yaml.Node, value: Any, *, file: Path) -> Document:
    line = node.start_mark.line + 1
    if not isinstance(value, dict):
        raise DocumentError(f"{file}:{line}: an InferenceService is a mapping of fields, not {type(value).__name__}")
    kind, version = value.get("kind"), value.get("apiVersion")
    if (kind, version) != (v1alpha1.KIND, v1alpha1.API_VERSION):
        raise DocumentError(
            f"{file}:{line}: kind {kind!r} of apiVersion {version!r} does not run in local mode: only kind "
            f"{v1alpha1.KIND} of apiVersion {v1alpha1.API_VERSION} does; keep the others in another file"
        )
    manifest = _manifest(value, folder=file.parent)
    _check_namespace(manifest, place=f"{file}:{_line(node, ('metadata', 'namespace'))}")
    try:
        InferenceService.model_validate(manifest)
    except ValidationError as invalid:
        place = min((_line(node, error["loc"]) for error in invalid.errors()), default=line)
        raise DocumentError(f"{file}:{place}: {explain(invalid)}") from invalid
    return Document(manifest, file, line)


def _check_namespace(manifest: Manifest, *, place: str) -> None:
    """A namespace is an object of its own on a cluster, which would refuse a wrong name; here it names folders."""
    match manifest["metadata"]:
        case {"namespace": str(namespace)} if not _NAMESPACE.fullmatch(namespace):
            raise DocumentError(
                f"{place}: metadata.namespace: {namespace!r}: must hold at most 63 lowercase letters, digits and '-', "
                "and begin and end with a letter or digit"
            )


def _manifest(value: dict[str, Any], *, folder: Path) -> Manifest:
    """What the user declares: without the status and the server's metadata that `kubectl get -o yaml` adds."""
    metadata = value.get("metadata")
    kept = metadata
    if isinstance(metadata, dict):
        given = {field: metadata[field] for field in _GIVEN_METADATA if metadata.get(field) is not None}
        kept = {"namespace": DEFAULT_NAMESPACE, **given}
    declared = {field: part for field, part in value.items() if field != "status"}
    return {**declared, "metadata": kept, "spec": _with_absolute_uris(value.get("spec"), folder)}


def _with_absolute_uris(spec: Any, folder: Path) -> Any:
    """`file://./digits.onnx` is relative to the file that it is written in."""
    for path in _URIS:
        spec = _with_absolute(spec, path, folder=folder)
    return spec


def _with_absolute(node: Any, path: tuple[str, ...], *, folder: Path) -> Any:
    if path and isinstance(node, dict) and path[0] in node:
        return {**node, path[0]: _with_absolute(node[path[0]], path[1:], folder=folder)}
    if not path and isinstance(node, str) and node.startswith(("file://./", "file://../")):
        return (folder / node.removeprefix("file://")).resolve().as_uri()
    return node


def _line(node: yaml.Node, path: Iterable[str | int]) -> int:
    """The line of the field at `path`, or of what comes closest to it."""
    line = node.start_mark.line + 1
    for part in path:
        found = _child(node, part)
        if found is None:
            break
        line, node = found
    return line


def _child(node: yaml.Node, part: str | int) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == part:
                return key.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part].start_mark.line + 1, node.value[part]
    return None
