"""What a model's arena holds of activations, in one way to hold them: some runs with onnxruntime's profiler."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from openclaw.errors import InferenceFailed
from openclaw.memory.profile import ArenaUse, arena_use
from openclaw.memory.properties import Memory
from openclaw.optimizer.measuring.engine import Engine, open_session
from openclaw.optimizer.recipe import Feed

_RUNS = 3
"""With a pattern the second run is the first that uses it, and the third the first with an answer of such a run beside
it; what is held after that is held from then on."""


def held(model: Path, feed: Feed, memory: Memory, *, threads: int) -> ArenaUse:
    """What the arena held over runs with these inputs, in a session of their own.

    Args:
        model: a file.
        feed: the inputs; where rows are split, those that are run at once tell as much.
        memory: how activations are held.
        threads: of one inference.

    Raises:
        ModelInvalid, InferenceFailed: it cannot be opened so, or does not run, or tells nothing.
    """
    with tempfile.TemporaryDirectory(prefix="openclaw-profile-") as folder:
        session = open_session(model, threads, arena=memory.arena, profile=Path(folder) / "profile")
        engine = Engine(session, memory)
        answer = None
        for _ in range(_RUNS):
            # The answer before is still there meanwhile, as while it is sent: an arena that just fits one has no room.
            answer = engine.run(feed)
        del answer
        try:
            return arena_use(json.loads(Path(session.end_profiling()).read_text()))
        except ValueError as error:
            raise InferenceFailed(f"the model's memory cannot be measured: {error}") from error
