"""A loaded model: an onnxruntime session behind names, datatypes and shapes that are checked."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from openclaw.devices.cpu import Grant, default_threads, read_grant
from openclaw.errors import (
    DeviceUnavailable,
    InferenceFailed,
    InvalidRequest,
    ModelInvalid,
    ModelNotFound,
    OutOfMemory,
    RequestError,
)
from openclaw.execute import engines
from openclaw.execute.bound import Bound
from openclaw.execute.outputs import Empty
from openclaw.execute.running import runner
from openclaw.graph import bfloat16
from openclaw.graph.properties import readable_properties
from openclaw.graph.signature import Signature, TensorSpec, read_signature
from openclaw.memory.arena import Arena, arena_of
from openclaw.memory.properties import Memory, memory_of
from openclaw.memory.trimming import trim

if TYPE_CHECKING:
    from openclaw.devices.assigning import Assignment

log = logging.getLogger(__name__)

Array = npt.NDArray[np.generic]

_OF_KERNELS = (ort_errors.Fail, ort_errors.RuntimeException)
"""What a run raises where a kernel cannot go on, whatever the reason."""

_COPYING = ("ConvBNFusion", "ConvMulFusion", "ConvAddFusion")
"""Optimizers that write weights anew, and so would have them in memory (found by measuring, onnxruntime 1.31)."""

_OUT_OF_MEMORY = ("bad_alloc", "bad allocation", "failed to allocate", "available memory of")
"""In lower case; the last two are of onnxruntime's arena (bfc_arena.cc, onnxruntime 1.31)."""


class Model:
    """A model that answers ``run``; safe to call from many threads at once.

    Attributes:
        name: the file's stem, or what the caller chose.
        signature: inputs and outputs in the Open Inference Protocol's words.
        datatypes: of every output, by its name.
        threads: threads that one inference may use.
        engine: what runs it; see ``execute.engines``.
        device: where it was assigned to; None: nowhere, so to the CPU.
        memory: how it holds activations.
        path: the file.
        worked: whether it ever answered: what fails on its kernels from then on are inputs that do not suit it.
    """

    def __init__(
        self,
        session: Any,
        *,
        path: Path,
        name: str,
        threads: int,
        engine: str = engines.OWN,
        device: Assignment | None = None,
        memory: Memory | None = None,
    ) -> None:
        self.name = name
        self.device = device
        self.memory = memory or Memory()
        self.path = path
        self.threads = threads
        self.engine = engine
        self.signature: Signature = read_signature(session.get_inputs(), session.get_outputs())
        self._inputs = {spec.name: spec for spec in self.signature.inputs}
        self.datatypes = {spec.name: spec.datatype for spec in self.signature.outputs}
        self._outputs = tuple(self.datatypes)
        self.worked = False
        self._session = session
        self._run = runner(session, self.signature, self.memory)
        if engine == engines.OPENVINO:
            from openclaw.execute.recovering import Recovering

            self._run = Recovering(self._run, self.signature).run

    @classmethod
    def from_file(
        cls,
        path: Path,
        *,
        name: str | None = None,
        threads: int | None = None,
        grant: Grant | None = None,
        source: str | None = None,
        device: Assignment | None = None,
        memory: Memory | None = None,
        mapped: bool = False,
    ) -> Model:
        """Loads an ONNX file, to run on the engine that it names if that is installed.

        Args:
            path: the file.
            name: the model's name, by default the file's without its ending.
            threads: for one inference, by default the whole cores this process is granted.
            grant: what this process is granted.
            source: what errors call the file, when it is a copy of what the user named.
            device: where it runs, by default the CPU.
            memory: how onnxruntime's own kernels hold activations, by default as the file says.
            mapped: whether weights outside of the file are to stay pages of theirs, which the kernel can drop; runs on
                onnxruntime's own kernels then.

        Raises:
            ModelNotFound, ModelInvalid, OutOfMemory, DeviceUnavailable: with the sentence a user needs.
        """
        grant = grant or read_grant()
        threads = threads or (device.threads if device else default_threads(grant.cores))
        if not mapped:
            _check_fits(path, grant)
        source = source or path.name
        elsewhere = device if device and not device.on_cpu else None
        said = readable_properties(path)  # of what cannot be read, opening a session finds the words
        engine = engines.OWN if elsewhere or mapped else engines.usable(engines.engine_of(said), source=source)
        own = Memory() if elsewhere else memory or memory_of(said, source=source)
        try:
            session = _open_session(
                path, threads, source=source, engine=engine, said=said, device=elsewhere, arena=own.arena, mapped=mapped
            )
        except ModelInvalid as error:
            if engine == engines.OWN:
                raise
            log.warning("%s cannot be run by %s, so onnxruntime runs it: %s", source, engine, error)
            engine = engines.OWN
            session = _open_session(path, threads, source=source, engine=engine, said=said, arena=own.arena)
        return cls(
            session,
            path=path,
            name=name or path.stem,
            threads=threads,
            engine=engine,
            device=device,
            # An engine beside onnxruntime's own kernels has memory of its own.
            memory=own if engine == engines.OWN else None,
        )

    def run(self, inputs: Mapping[str, npt.ArrayLike], *, outputs: Iterable[str] | None = None) -> dict[str, Array]:
        """Runs one inference.

        Args:
            inputs: an array for every input of the signature, of its datatype and shape; lists and numbers
                take the model's datatype. BF16 is taken as ml_dtypes' bfloat16 or as its bits in uint16, and
                given as its bits.
            outputs: which outputs to compute, all by default.

        Raises:
            InvalidRequest: an input or output is unknown, missing, or of another datatype or shape; or the model takes
                no such values or sizes.
            InferenceFailed: the model failed for another reason, as :meth:`infer` tells them apart.
        """
        arrays = {name: self._checked(name, value) for name, value in inputs.items()}
        missing = [spec for spec in self.signature.inputs if spec.name not in arrays]
        if missing:
            raise InvalidRequest(
                f"input {missing[0].name!r} is missing; the model takes {_listed(self.signature.inputs)}"
            )
        names = self._outputs if outputs is None else tuple(outputs)
        for name in names:
            if name not in self._outputs:
                raise InvalidRequest(f"there is no output {name!r}; the model gives {_listed(self.signature.outputs)}")
        return dict(zip(names, self.infer(names, arrays), strict=True))

    def _checked(self, name: str, value: npt.ArrayLike) -> Array:
        spec = self._inputs.get(name)
        if spec is None:
            raise InvalidRequest(f"there is no input {name!r}; the model takes {_listed(self.signature.inputs)}")
        array = _as_array(value, spec)
        if spec.datatype == "BYTES":
            array = _as_strings(array, name)
        elif array.dtype != spec.dtype:
            raise InvalidRequest(f"input {name!r} is {array.dtype}; the model takes {spec.dtype} ({spec.datatype})")
        if not spec.accepts(array.shape):
            raise InvalidRequest(
                f"input {name!r} has shape {list(array.shape)}; the model takes {list(spec.shape)} (-1: any size)"
            )
        return array

    def infer(self, names: Sequence[str], arrays: Mapping[str, Array]) -> list[Array]:
        """Runs one inference on inputs that were held against the signature already; the outputs ``names``, in order.

        Raises:
            InvalidRequest: the model takes no such values or sizes. A signature says little of what a model takes:
                inputs may have to agree with each other, or numbers with a table. What kernels make of the rest has no
                error of its own, so it is taken for this once the model has worked, on a CPU.
            InferenceFailed: there is no memory, the device failed, or the model has never worked.
            RequestError: what :meth:`place_outputs` was given has no place for the outputs.
        """
        try:
            results: list[Array] = self._run(names, arrays)
        except RequestError:
            raise
        except ort_errors.InvalidArgument as error:
            raise InvalidRequest(f"the model refuses these inputs: {_brief(error)}") from error
        except MemoryError as error:
            raise InferenceFailed("out of memory while running the model") from error
        except Exception as error:
            # onnxruntime's exceptions have no common base below Exception, and kernels raise any of them.
            if _is_shortage(error):
                raise InferenceFailed(f"out of memory while running the model: {_brief(error)}") from error
            if self.worked and self._on_cpu and isinstance(error, _OF_KERNELS):
                raise InvalidRequest(f"the model takes no such inputs: {_brief(error)}") from error
            raise InferenceFailed(f"the model failed: {_brief(error)}") from error
        self.worked = True
        return results

    @property
    def _on_cpu(self) -> bool:
        # The other engines are built into an onnxruntime for GPUs.
        own = self.engine in (engines.OWN, engines.OPENVINO)
        return own and (self.device is None or self.device.on_cpu)

    def place_outputs(self, empty: Empty) -> None:
        """Has large outputs written to arrays that ``empty`` makes, where their shapes can be told before a run.

        Args:
            empty: makes an array of a shape and datatype, of any content. Where it raises a RequestError, so does a
                run, before it begins.
        """
        if self.engine == engines.OWN and self._on_cpu:
            self._run = runner(self._session, self.signature, self.memory, empty=empty)

    def close(self) -> None:
        """Gives its memory back once the runs that go on have ended; it answers nothing after that."""
        self._session = None
        self._run = _closed

    def bind(self, arrays: Mapping[str, Array], *, most: int = 1) -> Bound:
        """Memory for inferences on inputs of these shapes, all of numbers but BF16; infers once to know the outputs'.

        Args:
            arrays: of one request.
            most: requests that may be inferred together; above 1 only for a model whose rows are independent.

        Raises:
            RequestError: as :meth:`infer`.
        """
        inputs = {name: np.array(array, order="C") for name, array in arrays.items()}
        results = self.infer(self._outputs, inputs)
        outputs = {name: np.array(array, order="C") for name, array in zip(self._outputs, results, strict=True)}
        if most > 1:
            inputs, outputs = (
                {name: np.concatenate([array] * most) for name, array in each.items()} for each in (inputs, outputs)
            )
        return Bound(self._session, inputs, outputs, most=most)


def _closed(*_: object) -> list[Array]:
    raise InferenceFailed("the model was closed")


def _as_array(value: npt.ArrayLike, spec: TensorSpec) -> Array:
    """Arrays stay as they are; lists and numbers have no dtype of their own, so they take the model's."""
    if isinstance(value, np.ndarray):
        return value.view(np.uint16) if spec.datatype == "BF16" and value.dtype.name == "bfloat16" else value
    try:
        if spec.datatype == "BF16":
            return bfloat16.to_bits(np.asarray(value, dtype=np.float32))
        array = np.asarray(value)
        fits = np.can_cast(array.dtype, spec.dtype, "same_kind")
        return np.asarray(value, dtype=spec.dtype) if fits else array
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(f"input {spec.name!r} does not fit {spec.datatype}: {error}") from error


def _as_strings(array: Array, name: str) -> Array:
    """What onnxruntime takes as strings: it would write bytes as Python shows them, ``b'...'``."""
    if array.dtype.kind == "U":
        return array
    items = array.ravel().tolist()
    try:
        strings = [item.decode() if isinstance(item, bytes) else item for item in items]
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"input {name!r} holds bytes that are not UTF-8: {error.reason}") from error
    for item in strings:
        if not isinstance(item, str):
            raise InvalidRequest(f"input {name!r} holds {type(item).__name__}; the model takes strings (BYTES)")
    return np.array(strings, dtype=object).reshape(array.shape)


def _check_fits(path: Path, grant: Grant) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise ModelNotFound(f"there is no model at {path}: {error.strerror}") from error
    if grant.memory_bytes is not None and size > grant.memory_bytes:
        raise OutOfMemory(
            f"the model file has {size:,} bytes and this process is granted {grant.memory_bytes:,} bytes of memory; "
            "raise the memory limit (in Kubernetes: resources.limits.memory)"
        )


def session_options(threads: int, *, spinning: bool = False, log_severity: int = 3, profile: Path | None = None) -> Any:
    """Options for a session as a server has it; also for those that are measured, which may differ in what follows.

    Args:
        threads: for one inference.
        spinning: whether its threads spin from one operator to the next, as onnxruntime's do, but no longer than a run
            lasts. A pool that spins on burns every core for a while after each request: other pods pay for it.
        log_severity: from which on onnxruntime logs; 3: errors, 4: what ends the process.
        profile: what the name of the file begins with that its profile is written to; None: there is no profile.
    """
    # It would leave a device identifier in the user's home.
    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    entry = ("session.force_spinning_stop", "1") if spinning else ("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry(*entry)
    options.log_severity_level = log_severity
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    return options


def _open_session(
    path: Path,
    threads: int,
    *,
    source: str,
    engine: str,
    said: Mapping[str, str],
    device: Assignment | None = None,
    arena: Arena | None = None,
    mapped: bool = False,
) -> Any:
    options = session_options(threads)
    try:
        if device is not None:
            from openclaw.execute.providing import open_on

            return open_on(device, path, options)
        with arena_of(options, arena if engine == engines.OWN else None):
            without = _keep_mapped(options) if mapped else None
            session = engines.open_session(path, options, engine, threads=threads, said=said, without=without)
        trim()
        return session
    except DeviceUnavailable:
        raise
    except MemoryError as error:
        raise OutOfMemory(f"out of memory while loading {source}; raise the memory limit") from error
    except Exception as error:
        # onnxruntime's exceptions have no common base below Exception.
        if _is_shortage(error):
            raise OutOfMemory(f"out of memory while loading {source}; raise the memory limit") from error
        raise ModelInvalid(_why_invalid(error, source=source, size=path.stat().st_size)) from error


def _keep_mapped(options: Any) -> list[str]:
    """Has a session leave weights where they are; returns the optimizers that it must do without."""
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    return list(_COPYING)


def _is_shortage(error: Exception) -> bool:
    said = str(error).lower()
    return any(sign in said for sign in _OUT_OF_MEMORY)


def _why_invalid(error: Exception, *, source: str, size: int) -> str:
    if isinstance(error, ort_errors.InvalidProtobuf) or "No graph was found" in str(error):
        return f"{source} ({size:,} bytes) is not an ONNX model, or was cut short: {_brief(error)}"
    return f"{source} cannot be executed by onnxruntime {onnxruntime.__version__}: {_brief(error)}"


def _brief(error: Exception) -> str:
    """The text of onnxruntime without its prefix, on one line."""
    text = " ".join(str(error).split())
    return text.split(" : ", 3)[-1][:600] if text.startswith("[ONNXRuntimeError]") else text[:600]


def _listed(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(str(spec) for spec in specs) or "none"
