"""Calibration data: what the user gives becomes checked samples, split in two halves that share nothing.

A file ``DATA.npz`` holds an array for every input of the model, by its name; the first axis counts samples. A folder
holds such files, whose samples are taken together in the order of the files' names, or one ``NAME.npy`` for every input
(for a model with one input, ``.npy`` files of any names). Files may differ in the sizes that the model leaves free, so
a folder can hold sentences of several lengths.

An input's first dimension is its batch unless the array has one dimension more than the input: then every sample is a
whole input, which is how inputs without a batch, scalars among them, are given.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import onnx

from openclaw.errors import ConfigInvalid
from openclaw.graph.signature import Signature, TensorSpec, read_signature
from openclaw.optimizer.recipe import Feed

Array = npt.NDArray[np.generic]

MAX_BYTES = 2 << 30
FREE_BATCH = 8

_ELEMENTS = {
    number: name.lower() for name, number in onnx.TensorProto.DataType.items() if name not in ("FLOAT", "UNDEFINED")
} | {onnx.TensorProto.FLOAT: "float"}


@dataclass(frozen=True)
class Samples:
    """Samples that fit a model's inputs.

    Attributes:
        signature: of the model; only its inputs count.
        blocks: arrays by input name; in one block all have as many samples, and each sample the same shape.
        chosen: which samples, as (block, row), in order.
        whole: the inputs of which a sample is all, not one row of a batch.
    """

    signature: Signature
    blocks: tuple[Mapping[str, Array], ...]
    chosen: tuple[tuple[int, int], ...]
    whole: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def batch(self) -> int | None:
        """Samples that the model takes at once; None: as many as one likes."""
        if self.whole:
            return 1
        sizes = {spec.shape[0] for spec in self.signature.inputs} - {-1}
        return next(iter(sizes), None)

    def feeds(self, size: int = FREE_BATCH) -> list[Feed]:
        """The samples as runs of the model; those of one shape share batches.

        Args:
            size: samples in a batch where the model leaves it free. Where it does not, the last batch is filled up
                with samples that it, or those before it, already had.
        """
        return [self._feed(block, rows) for block, rows in self._batches(size)]

    def _batches(self, size: int) -> Iterator[tuple[Mapping[str, Array], list[int]]]:
        step = self.batch or size
        for number, block in enumerate(self.blocks):
            rows = [row for which, row in self.chosen if which == number]
            for start in range(0, len(rows), step):
                batch = rows[start : start + step]
                if self.batch:
                    batch += [rows[index % len(rows)] for index in range(step - len(batch))]
                yield block, batch

    def _feed(self, block: Mapping[str, Array], rows: list[int]) -> Feed:
        feed = {}
        for spec in self.signature.inputs:
            picked = block[spec.name][rows[0]] if spec.name in self.whole else block[spec.name][rows]
            array = np.asarray(picked, dtype=object) if spec.datatype == "BYTES" else np.ascontiguousarray(picked)
            # ascontiguousarray makes a scalar a vector.
            feed[spec.name] = array.reshape(np.shape(picked))
        return MappingProxyType(feed)


def read(path: Path, model: onnx.ModelProto, *, max_bytes: int = MAX_BYTES) -> Samples:
    """Reads and checks calibration data.

    Args:
        path: an ``.npz`` file, or a folder of ``.npz`` or of ``.npy`` files.
        model: whose inputs it is for; initializers that are inputs too are left at their values.
        max_bytes: of all arrays together, as they lie in memory.

    Raises:
        ConfigInvalid: the data does not fit; the sentence names the file, the input, its value and what is allowed.
        ModelInvalid: an input of the model is no tensor.
    """
    signature = signature_of(model)
    if not path.exists():
        raise ConfigInvalid(f"calibration: there is nothing at {path}; give an .npz file or a folder of .npz or .npy")
    reader = _Reader(signature, max_bytes)
    files = _files(path)
    blocks = reader.read_npy(files) if files[0].suffix == ".npy" else [reader.read_npz(file) for file in files]
    return from_arrays(blocks, model)


def from_arrays(blocks: Sequence[Mapping[str, Array]], model: onnx.ModelProto) -> Samples:
    """Checks arrays by input name, one mapping for every set of sample shapes; raises as :func:`read`."""
    signature = signature_of(model)
    if not signature.inputs:
        raise ConfigInvalid("calibration: the model has no inputs, so there is nothing to calibrate it on")
    wholes = [_check_block(block, signature) for block in blocks]
    if len(set(wholes)) > 1:
        raise ConfigInvalid(
            f"calibration: a sample of {_differing(wholes)!r} is a whole input in one file and a row of a batch in "
            "another; give all files the same number of dimensions"
        )
    counts = [len(next(iter(block.values()))) for block in blocks]
    chosen = tuple((number, row) for number, count in enumerate(counts) for row in range(count))
    if not chosen:
        raise ConfigInvalid("calibration: it holds 0 samples; at least 2 are needed")
    samples = Samples(signature, tuple(MappingProxyType(dict(block)) for block in blocks), chosen, whole=wholes[0])
    _check_batch(samples)
    return samples


def split(samples: Samples, seed: int = 0, *, held_out: float = 0.5) -> tuple[Samples, Samples]:
    """Parts samples into those to calibrate on and those held out to judge on.

    Samples that are equal in every input fall on one side. The same samples and seed give the same parts.

    Raises:
        ConfigInvalid: there are fewer than 2 different samples.
    """
    groups: dict[bytes, list[tuple[int, int]]] = {}
    for block, row in samples.chosen:
        groups.setdefault(_digest(samples.blocks[block], row), []).append((block, row))
    if len(groups) < 2:
        raise ConfigInvalid(
            f"calibration: it holds {len(samples)} samples, of which {len(groups)} differ; at least 2 that differ are "
            "needed, because what a model is judged on must not be what it was calibrated on"
        )
    # Sorted by digest, so that the order of files does not decide who is held out.
    order = np.random.default_rng(seed).permutation(len(groups))
    digests = sorted(groups)
    count = min(max(1, round(len(groups) * held_out)), len(groups) - 1)
    outside = {place for index in order[:count] for place in groups[digests[index]]}
    return (
        replace(samples, chosen=tuple(place for place in samples.chosen if place not in outside)),
        replace(samples, chosen=tuple(place for place in samples.chosen if place in outside)),
    )


def signature_of(model: onnx.ModelProto) -> Signature:
    """The inputs that must be given, and the outputs.

    Raises:
        ModelInvalid: one of them is no tensor.
    """
    initialized = {tensor.name for tensor in model.graph.initializer}
    initialized |= {tensor.values.name for tensor in model.graph.sparse_initializer}
    inputs = [_argument(value) for value in model.graph.input if value.name not in initialized]
    return read_signature(inputs, [_argument(value) for value in model.graph.output])


def _argument(value: onnx.ValueInfoProto) -> Any:
    kind = value.type.WhichOneof("value") or "an unknown type"
    if kind != "tensor_type":
        word = {"sequence_type": "seq(...)", "map_type": "map(...)"}.get(kind, kind)
        return SimpleNamespace(name=value.name, type=word, shape=[])
    tensor = value.type.tensor_type
    shape = [size.dim_value if size.HasField("dim_value") else None for size in tensor.shape.dim]
    return SimpleNamespace(name=value.name, type=f"tensor({_ELEMENTS.get(tensor.elem_type, '?')})", shape=shape)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        if path.suffix != ".npz":
            raise ConfigInvalid(f"calibration: {path} ends in {path.suffix!r}; a file must be .npz, or give a folder")
        return [path]
    files = {suffix: sorted(path.glob(f"*{suffix}")) for suffix in (".npz", ".npy")}
    if all(files.values()):
        raise ConfigInvalid(f"calibration: {path} holds .npz and .npy files; use one kind")
    found = files[".npz"] or files[".npy"]
    if not found:
        raise ConfigInvalid(f"calibration: {path} holds no .npz or .npy file")
    return found


class _Reader:
    """Reads arrays without unpickling, and refuses what would not fit into memory before it is read."""

    def __init__(self, signature: Signature, max_bytes: int) -> None:
        self._inputs = signature.inputs
        self._max_bytes = max_bytes
        self._bytes = 0

    def read_npz(self, file: Path) -> dict[str, Array]:
        try:
            with zipfile.ZipFile(file) as archive:
                names = [name for name in archive.namelist() if name.endswith(".npy")]
                arrays = {}
                for name in names:
                    with archive.open(name) as stream:
                        arrays[name.removesuffix(".npy")] = self._array(
                            stream, f"{file}: {name.removesuffix('.npy')!r}"
                        )
        except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError) as error:
            raise ConfigInvalid(f"calibration: {file} cannot be read as .npz: {error}") from error
        return arrays

    def read_npy(self, files: Sequence[Path]) -> list[dict[str, Array]]:
        arrays = {}
        for file in files:
            with file.open("rb") as stream:
                arrays[file.stem] = self._array(stream, str(file))
        if len(self._inputs) == 1 and self._inputs[0].name not in arrays:
            return [{self._inputs[0].name: array} for array in arrays.values()]
        return [arrays]

    def _array(self, stream: IO[bytes], where: str) -> Array:
        try:
            header = np.lib.format.read_magic(stream)
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }.get(header)
            if read_header is None:
                raise ValueError(f"it is of version {header} of the format; 1.0 and 2.0 are read")
            shape, by_columns, dtype = read_header(stream)
            if dtype.hasobject:
                raise ConfigInvalid(
                    f"calibration: {where} holds Python objects ({dtype}), which only unpickling could read; "
                    "save an array of numbers or of strings (dtype str)"
                )
            self._reserve(shape, dtype, where=where)
            data = bytearray(stream.read(_size(shape, dtype) + 1))
            if len(data) != _size(shape, dtype):
                raise ValueError(f"its header announces {_size(shape, dtype)} bytes and {len(data)} were found")
        except (ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ConfigInvalid(f"calibration: {where} cannot be read: {error}") from error
        return np.frombuffer(data, dtype).reshape(shape, order="F" if by_columns else "C")

    def _reserve(self, shape: tuple[int, ...], dtype: np.dtype[Any], *, where: str) -> None:
        self._bytes += _size(shape, dtype)
        if self._bytes > self._max_bytes:
            raise ConfigInvalid(
                f"calibration: with {where} of shape {list(shape)} the data has {self._bytes:,} bytes; "
                f"{self._max_bytes:,} are allowed, give fewer samples"
            )


def _size(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    size = dtype.itemsize
    for length in shape:
        size *= length
    return size


def _check_block(block: Mapping[str, Array], signature: Signature) -> frozenset[str]:
    """The inputs that are given whole; raises ConfigInvalid where the arrays do not fit."""
    takes = ", ".join(str(spec) for spec in signature.inputs)
    for name in block:
        if name not in signature.inputs_by_name:
            raise ConfigInvalid(f"calibration: the model has no input {name!r}; it takes {takes}")
    for spec in signature.inputs:
        if spec.name not in block:
            raise ConfigInvalid(f"calibration: input {spec.name!r} is missing; the model takes {takes}")
    whole = frozenset(spec.name for spec in signature.inputs if _is_whole(block[spec.name], spec))
    counts = {name: len(array) for name, array in block.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name!r} {count}" for name, count in counts.items())
        raise ConfigInvalid(f"calibration: every input needs as many samples; there are {listed}")
    return whole


def _is_whole(array: Array, spec: TensorSpec) -> bool:
    where = f"calibration: input {spec.name!r}"
    fits = array.dtype.kind == "U" if spec.datatype == "BYTES" else array.dtype == spec.dtype
    if not fits:
        wanted = "str" if spec.datatype == "BYTES" else spec.dtype
        raise ConfigInvalid(f"{where} is {array.dtype}; the model takes {wanted} ({spec.datatype})")
    whole = array.ndim == len(spec.shape) + 1
    sample = array.shape[1:]
    wanted_sample = spec.shape if whole else spec.shape[1:]
    if array.ndim == 0 or not replace(spec, shape=wanted_sample).accepts(sample):
        allowed = "[samples," + ",".join(str(size) for size in spec.shape[1:]) + "]"
        raise ConfigInvalid(
            f"{where} has shape {list(array.shape)}; allowed is {allowed.replace(',]', ']')} "
            f"or [samples,*{list(spec.shape)}] (-1: any size)"
        )
    if array.size == 0:
        raise ConfigInvalid(f"{where} has shape {list(array.shape)} and so holds no values; at least one is needed")
    if array.dtype.kind == "f" and np.isnan(array).any():
        row = int(np.argwhere(np.isnan(array))[0][0])
        raise ConfigInvalid(f"{where} holds NaN in sample {row}; only numbers are allowed")
    return whole


def _differing(wholes: Sequence[frozenset[str]]) -> str:
    return min(frozenset.union(*wholes) - frozenset.intersection(*wholes))


def _check_batch(samples: Samples) -> None:
    first = {spec.name: spec.shape[0] for spec in samples.signature.inputs if spec.name not in samples.whole}
    fixed = {name: size for name, size in first.items() if size != -1}
    listed = ", ".join(f"{name!r} {size}" for name, size in fixed.items())
    advice = "give every sample as a whole input, in arrays with one dimension more"
    if samples.whole and set(fixed.values()) - {1}:
        raise ConfigInvalid(f"calibration: the model takes batches of {listed} beside whole inputs; {advice}")
    if len(set(fixed.values())) > 1:
        raise ConfigInvalid(f"calibration: the model's inputs take batches of different sizes: {listed}; {advice}")


def _digest(block: Mapping[str, Array], row: int) -> bytes:
    digest = hashlib.sha256()
    for name in sorted(block):
        sample = block[name][row]
        digest.update(f"{name}{sample.dtype.str}{sample.shape}".encode())
        # Equal numbers have equal bytes but for -0.0, which is 0.0 here.
        digest.update(
            (sample + sample.dtype.type(0) if sample.dtype.kind == "f" else np.ascontiguousarray(sample)).tobytes()
        )
    return digest.digest()
