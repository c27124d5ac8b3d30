"""Models in the form that is mapped into memory: a small graph, and each large tensor in a file of its own.

mapped/KEY.onnx           the graph (KEY: which file it was made of)
mapped/KEY.json           its digest, and those of the tensors; written last
mapped/tensors/SHA-256    the bytes of one tensor
mapped/parts/             files that are being written

Tensors are found by their content, so several models, or versions of one, that have equal ones share a file, and with
it the pages in memory. They are inside of the graph's folder because onnxruntime reads none outside of it.

What is found is read and compared with its digest once in a process; after that its size and time are enough.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from openclaw.errors import CannotMap
from openclaw.graph.weights import Weight, Weights, chunks, copy, read_weights, write_outside
from openclaw.graph.wire import MalformedError

log = logging.getLogger(__name__)

_FORMAT = 1
_TENSORS = "tensors"
_ABANDONED_SECONDS = 3600
"""After so long without a write, a part is what a crash left."""
_MARGIN = 1 << 20

_Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Form:
    """A model that can be mapped.

    Attributes:
        path: the graph, to be opened.
        weights: bytes of the tensors that are mapped.
        small: bytes of the graph, which are not.
    """

    path: Path
    weights: int
    small: int


@dataclass(frozen=True, slots=True)
class _Note:
    """What belongs to a form: the graph's digest and size, and the tensors' sizes by digest."""

    graph: str
    size: int
    tensors: Mapping[str, int]

    @classmethod
    def read(cls, path: Path) -> _Note | None:
        """None where there is none that can be read."""
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document["format"] != _FORMAT:
                return None
            tensors = {str(digest): int(size) for digest, size in document["tensors"].items()}
            return cls(str(document["graph"]), int(document["size"]), tensors)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def text(self) -> str:
        return json.dumps({"format": _FORMAT, "graph": self.graph, "size": self.size, "tensors": dict(self.tensors)})


class MappedForms:
    """The forms in one cache folder; shared between processes. Methods block: call them in a thread.

    Args:
        folder: of the cache.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "mapped"
        self._tensors = self._folder / _TENSORS
        self._parts = self._folder / "parts"
        self._checked: dict[Path, _Stamp] = {}

    def form_of(self, model: Path) -> Form:
        """The form of a model file, made now if it is not there or damaged.

        Raises:
            CannotMap: the file is no model, has nothing that could be mapped, or the form cannot be kept.
        """
        try:
            key = _key(model)
            if (found := self._found(key)) is not None:
                return found
            began = time.perf_counter()
            weights = read_weights(model)
            if not weights.inside:
                return _as_it_is(model, weights)
            form = self._made(model, key, weights)
        except MalformedError as error:
            raise CannotMap(f"{model} is not an ONNX model, or was cut short: {error}") from error
        except OSError as error:
            raise CannotMap(self._sentence(model, error)) from error
        log.info("%s can be mapped: %s bytes, in %.1f s", model.name, f"{form.weights:,}", time.perf_counter() - began)
        return form

    def _found(self, key: str) -> Form | None:
        note = _Note.read(self._folder / f"{key}.json")
        if note is None:
            return None
        graph = self._folder / f"{key}.onnx"
        files = {graph: (note.graph, note.size)}
        files |= {self._tensors / digest: (digest, size) for digest, size in note.tensors.items()}
        if all(self._intact(path, digest, size=size) for path, (digest, size) in files.items()):
            return Form(graph, sum(note.tensors.values()), note.size)
        return None

    def _intact(self, path: Path, digest: str, *, size: int) -> bool:
        """Whether a file is what it should be; a damaged one is removed."""
        try:
            stamp = _stamp(path)
            if self._checked.get(path) == stamp:
                return True
            if stamp[0] == size:
                with path.open("rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() == digest:
                        self._checked[path] = stamp
                        return True
        except FileNotFoundError:
            return False
        log.warning("%s is damaged; it is made anew", path)
        path.unlink(missing_ok=True)
        return False

    def _made(self, model: Path, key: str, weights: Weights) -> Form:
        for folder in (self._tensors, self._parts):
            folder.mkdir(parents=True, exist_ok=True)
        self._sweep()
        with model.open("rb") as file:
            digests = [_digest(file, weight) for weight in weights.inside]
            tensors = dict(zip(digests, weights.inside, strict=True))
            absent = {
                digest: weight
                for digest, weight in tensors.items()
                if not self._intact(self._tensors / digest, digest, size=weight.size)
            }
            self._check_space(model, weights.small + sum(weight.size for weight in absent.values()))
            for digest, weight in absent.items():
                with self._new(self._tensors / digest) as part:
                    copy(file, part, at=weight.at, size=weight.size)
        graph = self._folder / f"{key}.onnx"
        with self._new(graph) as part:
            write_outside(model, weights, places=[f"{_TENSORS}/{digest}" for digest in digests], to=part)
        with graph.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        note = _Note(digest, graph.stat().st_size, {digest: weight.size for digest, weight in tensors.items()})
        with self._new(self._folder / f"{key}.json") as part:
            part.write(note.text().encode())
        self._checked[graph] = _stamp(graph)
        return Form(graph, sum(note.tensors.values()), note.size)

    @contextmanager
    def _new(self, path: Path) -> Iterator[BinaryIO]:
        """A file that has this name once all is written; nothing is left of one that fails."""
        descriptor, name = tempfile.mkstemp(dir=self._parts)
        try:
            with os.fdopen(descriptor, "wb") as part:
                yield part
            Path(name).replace(path)
        finally:
            Path(name).unlink(missing_ok=True)
        self._checked[path] = _stamp(path)

    def _sweep(self) -> None:
        """Removes what crashes left."""
        for part in self._parts.iterdir():
            with suppress(FileNotFoundError):
                if time.time() - part.stat().st_mtime > _ABANDONED_SECONDS:
                    part.unlink()

    def _check_space(self, model: Path, size: int) -> None:
        free = shutil.disk_usage(self._folder).free
        if size + _MARGIN > free:
            raise CannotMap(
                f"{model.name} needs {size:,} bytes in the cache folder {self._folder.parent} to be mapped from there, "
                f"and {free:,} are left; make room, or set OPENCLAW_CACHE_DIR to another folder"
            )

    def _sentence(self, model: Path, error: OSError) -> str:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return (
                f"{model.name} does not fit into the cache folder {self._folder.parent}, from which it would be "
                "mapped: no space is left there"
            )
        return f"{model.name} cannot be kept in the cache folder {self._folder.parent} to be mapped from there: {error}"


def _as_it_is(model: Path, weights: Weights) -> Form:
    """A model whose large weights are outside already is its own form."""
    if not weights.outside:
        raise CannotMap(f"{model.name} has no large weights that could be mapped")
    return Form(model, weights.outside, weights.small)


def _key(model: Path) -> str:
    """Names one state of a file by its place, size and time: reading it whole would take as long as opening it."""
    told = model.stat()
    text = f"{model.resolve()} {told.st_dev} {told.st_ino} {told.st_size} {told.st_mtime_ns}"
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _stamp(path: Path) -> _Stamp:
    told = path.stat()
    return told.st_size, told.st_mtime_ns, told.st_ino


def _digest(file: BinaryIO, weight: Weight) -> str:
    hasher = hashlib.sha256()
    for chunk in chunks(file, at=weight.at, size=weight.size):
        hasher.update(chunk)
    return hasher.hexdigest()
