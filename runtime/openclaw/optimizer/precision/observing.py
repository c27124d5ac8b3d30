"""What goes into the matrix layers of a model on the calibration data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from openclaw.devices.providers import CPU_PROVIDER
from openclaw.errors import NotApplicable
from openclaw.optimizer.precision.scaling import Observed
from openclaw.optimizer.recipe import Feed

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float32]

MAX_FEEDS = 128
ROWS = 192
"""Rows that are kept of a layer's input: three quarters drawn evenly, one quarter those that reach farthest out."""


def observe(
    model: onnx.ModelProto, names: Sequence[str], feeds: Sequence[Feed], *, threads: int
) -> dict[str, Observed]:
    """Runs ``model`` on ``feeds`` and looks at the values ``names``, each as rows of its last dimension.

    Values that hold nothing on any feed, or something that is no number, are left out.

    Raises:
        NotApplicable: onnxruntime cannot run the model on these feeds.
    """
    gathered = {name: _Gathering() for name in names}
    for values in values_of(model, names, feeds[:MAX_FEEDS], threads=threads):
        for name, gathering in gathered.items():
            gathering.add(values[name], len(feeds))
    return {name: found for name, gathering in gathered.items() if (found := gathering.observed()) is not None}


def values_of(
    model: onnx.ModelProto, names: Sequence[str], feeds: Sequence[Feed], *, threads: int
) -> Iterator[Mapping[str, Array]]:
    """The values ``names``, inputs among them or not, for every feed.

    Raises:
        NotApplicable: onnxruntime cannot run the model on these feeds.
    """
    inner = onnx.ModelProto()
    inner.CopyFrom(model)
    given = {value.name for value in inner.graph.input}
    present = {value.name for value in inner.graph.output}
    computed = [name for name in names if name not in given]
    inner.graph.output.extend(onnx.ValueInfoProto(name=name) for name in computed if name not in present)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(inner.SerializeToString(), options, providers=[CPU_PROVIDER])
    except Exception as error:
        # onnxruntime's exceptions have no common base below Exception.
        raise NotApplicable(f"the model cannot be run on the calibration data: {error}") from error
    for feed in feeds:
        try:
            values = _run(session, computed, feed)
        except Exception as error:
            # As above.
            raise NotApplicable(f"the model cannot be run on the calibration data: {error}") from error
        yield {name: values[name] if name in values else feed[name] for name in names}


def _run(session: onnxruntime.InferenceSession, names: Sequence[str], feed: Feed) -> dict[str, Array]:
    # onnxruntime takes no names at all for all of them.
    return dict(zip(names, session.run(names, dict(feed)), strict=True)) if names else {}


class _Gathering:
    """Bounds of one value's columns, and a bounded choice of its rows."""

    def __init__(self) -> None:
        self._lows: Floats | None = None
        self._highs: Floats | None = None
        self._even: list[Floats] = []
        self._far: Floats | None = None
        self._random = np.random.default_rng(0)

    def add(self, value: Array, feeds: int) -> None:
        """One run's value; ``feeds``: how many runs there will be."""
        if value.ndim == 0 or value.size == 0:
            return
        rows = np.asarray(value, np.float32).reshape(-1, value.shape[-1])
        lows, highs = rows.min(axis=0), rows.max(axis=0)
        self._lows = lows if self._lows is None else np.minimum(self._lows, lows)
        self._highs = highs if self._highs is None else np.maximum(self._highs, highs)
        share = -(-ROWS * 3 // 4 // max(1, min(feeds, MAX_FEEDS)))
        self._even.append(rows[self._random.permutation(len(rows))[:share]])
        both = rows if self._far is None else np.concatenate([self._far, rows])
        reach = np.abs(both).max(axis=1)
        self._far = both[np.argsort(-reach, kind="stable")[: ROWS // 4]].copy()

    def observed(self) -> Observed | None:
        if self._lows is None or self._highs is None or self._far is None:
            return None
        if not (np.isfinite(self._lows).all() and np.isfinite(self._highs).all()):
            return None
        return Observed(self._lows, self._highs, np.concatenate([*self._even, self._far]))
