"""From what the user names to a model that was verified, or a sentence that says what is wrong with it.

What cannot be optimized, but may be a good model, is marked ``untouched`` with the reason, and passed through as it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, EncodeError
from onnx import checker, external_data_helper

from openclaw.errors import ModelAccessDenied, ModelInvalid, ModelNotFound
from openclaw.optimizer.model.contents import tensors_of
from openclaw.optimizer.model.ordering import ordered

MAX_BYTES = 2**31 - 2**20
"""Of a model with its weights: protobuf messages end at 2 GiB, and what is added needs some room."""


@dataclass(frozen=True)
class Source:
    """A model as the user gave it.

    Attributes:
        name: how messages call it.
        model: with all weights in it, unless ``untouched``; then as it lies in the file.
        digest: SHA-256 of the file and of the files with its weights.
        bytes: of all these.
        untouched: why it cannot be optimized, or None.
        path: of the file, if it came from one.
        weights: the files with external data.
    """

    name: str
    model: onnx.ModelProto
    digest: str
    bytes: int
    untouched: str | None = None
    path: Path | None = None
    weights: tuple[Path, ...] = ()


def read(source: str | Path | onnx.ModelProto) -> Source:
    """Reads a model; :func:`check_source` then holds it against ONNX's rules.

    Raises:
        ModelNotFound, ModelAccessDenied: there is no such file, or it may not be read.
        ModelInvalid: it is no model or cut short, has a cycle, or misses weights.
    """
    return _from_proto(source) if isinstance(source, onnx.ModelProto) else _from_file(Path(source))


def check_source(source: Source) -> None:
    """Holds a source against ONNX's rules; raises ModelInvalid."""
    check(source.model if source.untouched is None or source.path is None else source.path, source.name)


def _from_proto(model: onnx.ModelProto) -> Source:
    name = model.graph.name or "the model"
    if not model.graph.output:
        raise ModelInvalid(f"{name} holds no graph with outputs")
    for tensor in tensors_of(model):
        if external_data_helper.uses_external_data(tensor):
            location = external_data_helper.ExternalDataInfo(tensor).location
            raise ModelInvalid(
                f"the weights of tensor {tensor.name!r} of {name} lie in the file {location!r}; give the path of the "
                "model, or load them with onnx.external_data_helper.load_external_data_for_model"
            )
    try:
        data = model.SerializeToString(deterministic=True)
    except (EncodeError, ValueError) as error:
        raise ModelInvalid(
            f"{name} is larger than 2 GiB, which protobuf cannot write; save it with external data and give the path"
        ) from error
    own = onnx.ModelProto()
    own.CopyFrom(model)
    return Source(name, in_order(own, name), hashlib.sha256(data).hexdigest(), len(data))


def _from_file(path: Path) -> Source:
    data = _bytes(path)
    model = _parsed(data, path.name)
    weights = _weights(model, path)
    digest = hashlib.sha256(data)
    for file in weights:
        with file.open("rb") as stream:
            # The name too, or two files that swapped their bytes would look the same.
            digest.update(f"{file.name}\0".encode() + hashlib.file_digest(stream, "sha256").digest())
    size = len(data) + sum(file.stat().st_size for file in weights)
    if size > MAX_BYTES:
        reason = f"it has {size:,} bytes with its weights, and a model that is rewritten must stay below 2 GiB"
        return Source(path.name, model, digest.hexdigest(), size, reason, path, weights)
    if weights:
        external_data_helper.load_external_data_for_model(model, str(path.parent))
    return Source(path.name, in_order(model, path.name), digest.hexdigest(), size, None, path, weights)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelNotFound(f"there is no model at {path}") from error
    except IsADirectoryError as error:
        raise ModelInvalid(f"{path} is a folder; give the .onnx file in it") from error
    except PermissionError as error:
        raise ModelAccessDenied(f"{path} may not be read: {error.strerror}") from error
    except OSError as error:
        raise ModelInvalid(f"{path} cannot be read: {error.strerror or error}") from error


def _parsed(data: bytes, name: str) -> onnx.ModelProto:
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise ModelInvalid(f"{name} ({len(data):,} bytes) is not an ONNX model, or was cut short") from error
    if not model.HasField("graph") or not model.graph.output:
        raise ModelInvalid(
            f"{name} ({len(data):,} bytes) holds no graph with outputs; it is no ONNX model, or cut short"
        )
    return model


def _weights(model: onnx.ModelProto, path: Path) -> tuple[Path, ...]:
    """The files with external data; each is held to exist beside the model, and to be long enough."""
    files: dict[str, Path] = {}
    for tensor in tensors_of(model):
        if not external_data_helper.uses_external_data(tensor):
            continue
        info = external_data_helper.ExternalDataInfo(tensor)
        where = f"{path.name}: the weights of tensor {tensor.name!r} are to be in {info.location!r}"
        file = path.parent / info.location
        if not info.location or not file.resolve().is_relative_to(path.parent.resolve()):
            raise ModelInvalid(f"{where}, which is not in the model's folder; only files there are read")
        if not file.is_file():
            raise ModelInvalid(f"{where}, and there is no file {file}; put it beside the model")
        end = (info.offset or 0) + (info.length or 0)
        if file.stat().st_size < end:
            raise ModelInvalid(f"{where} up to byte {end:,}, and {file} has {file.stat().st_size:,}; it was cut short")
        files[info.location] = file
    return tuple(files[name] for name in sorted(files))


def in_order(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Puts nodes, in place, after those whose outputs they read; raises ModelInvalid if there is a cycle.

    onnxruntime does not mind another order, and its quantization leaves one; ONNX's rules and passes do.
    """
    order = ordered(model.graph, name)
    if order is not None:
        del model.graph.node[:]
        model.graph.node.extend(order)
    return model


def check(model: onnx.ModelProto | Path, name: str) -> None:
    """Holds a model against ONNX's rules (``onnx.checker``); raises ModelInvalid with its sentence."""
    try:
        checker.check_model(str(model) if isinstance(model, Path) else model)
    except checker.ValidationError as error:
        text = " ".join(str(error).split())
        raise ModelInvalid(f"{name} breaks ONNX's rules: {text[:400]}") from error


def untouchable(model: onnx.ModelProto) -> Iterator[str]:
    """Reasons for which a model that runs cannot be compared with another form of it."""
    rules: tuple[Callable[[onnx.ValueInfoProto, str], str | None], ...] = (_no_tensor, _no_rank)
    given = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        if value.name not in given:
            yield from filter(None, (rule(value, "input") for rule in rules))
    for value in model.graph.output:
        yield from filter(None, [_no_tensor(value, "output")])


def _no_tensor(value: onnx.ValueInfoProto, kind: str) -> str | None:
    found = value.type.WhichOneof("value")
    if found in ("tensor_type", None):
        return None
    return f"{kind} {value.name!r} is a {found.removesuffix('_type').replace('_', ' ')}, and only tensors are compared"


def _no_rank(value: onnx.ValueInfoProto, kind: str) -> str | None:
    if value.type.tensor_type.HasField("shape"):
        return None
    return f"{kind} {value.name!r} may have any number of dimensions, so nobody knows what to run the model on"
