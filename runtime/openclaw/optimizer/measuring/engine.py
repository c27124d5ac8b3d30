"""onnxruntime as every comparison uses it: its defaults, on a given number of threads.

One thing differs from the defaults: a session's threads stop spinning when a run ends. Left as they are they spin on
for some 50 ms, and of two sessions that take turns each would be slowed by the other's threads (measured on 2 cores: a
run of 3.0 ms took 5 to 8 ms). With it a session takes as long between others as alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from openclaw.errors import InferenceFailed, ModelInvalid
from openclaw.execute import engines
from openclaw.execute.running import runner
from openclaw.execute.session import session_options
from openclaw.graph.properties import read_properties
from openclaw.graph.signature import Signature, read_signature
from openclaw.memory.arena import Arena, arena_of
from openclaw.memory.properties import Memory
from openclaw.optimizer.recipe import Feed

Array = npt.NDArray[np.generic]
Answer = Mapping[str, Array]
"""One run's outputs, by their names."""


class Engine:
    """A model in an onnxruntime session; ``signature`` says what it takes and gives."""

    def __init__(self, session: Any, memory: Memory | None = None) -> None:
        """``memory``: how it holds activations; the session has its arena."""
        self.signature: Signature = read_signature(session.get_inputs(), session.get_outputs())
        self.names = tuple(spec.name for spec in self.signature.outputs)
        self._run = runner(session, self.signature, memory or Memory())

    def run(self, feed: Feed) -> Answer:
        """Runs the model once; raises InferenceFailed with onnxruntime's sentence."""
        try:
            return dict(zip(self.names, self.run_unchecked(feed), strict=True))
        except Exception as error:
            # onnxruntime's exceptions have no common base below Exception, and kernels raise any of them.
            raise InferenceFailed(f"the model failed: {brief(error)}") from error

    def run_unchecked(self, feed: Feed) -> Sequence[Array]:
        """Runs the model once with nothing around it, to be timed."""
        results: Sequence[Array] = self._run(self.names, feed)
        return results


def open_engine(model: onnx.ModelProto | Path, threads: int, *, memory: Memory | None = None) -> Engine:
    """Loads a model as onnxruntime's defaults do, all optimizations on; on the engine that the model names.

    Args:
        model: what its properties say of memory is not heeded.
        threads: of one inference.
        memory: how activations are held, by default as onnxruntime does.

    Raises:
        ModelInvalid: onnxruntime cannot run it, or an input or output is no tensor.
    """
    arena = memory.arena if memory else None
    return Engine(open_session(model, threads, arena=arena), memory)


def open_session(
    model: onnx.ModelProto | Path,
    threads: int,
    *,
    arena: Arena | None = None,
    profile: Path | None = None,
    spinning: bool = True,
) -> Any:
    """The session of :func:`open_engine`, whatever its inputs are.

    Args:
        model: a path is read by onnxruntime itself.
        threads: of one inference.
        arena: settings of its arena, by default onnxruntime's own.
        profile: what the name of the file begins with that its profile is written to; None: there is no profile.
        spinning: whether threads spin while a run lasts; a server's do not.
    """
    # What a candidate has onnxruntime say is in the error that it is left out with.
    options = session_options(threads, spinning=spinning, log_severity=4, profile=profile)
    try:
        given = str(model) if isinstance(model, Path) else model.SerializeToString()
        said = _properties(model)
        with arena_of(options, arena):
            return engines.open_session(given, options, engines.engine_of(said), threads=threads, said=said)
    except Exception as error:
        # As above: anything may come out of a parser, an allocator or a kernel's constructor.
        raise ModelInvalid(f"onnxruntime {onnxruntime.__version__} cannot run it: {brief(error)}") from error


def _properties(model: onnx.ModelProto | Path) -> dict[str, str]:
    return read_properties(model) if isinstance(model, Path) else {one.key: one.value for one in model.metadata_props}


def brief(error: Exception) -> str:
    """The text of an error on one line, without onnxruntime's prefix."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text.split(" : ", 3)[-1][:400] if text.startswith("[ONNXRuntimeError]") else text[:400]
