"""Writes down every pause of Python's garbage collector in the server that is started with this folder in its path.

The interpreter imports a module of this name at its start (documentation of `site`). Each pause is 16 bytes: its
generation and its seconds, as two doubles, appended to the file that BENCH_GC_PAUSES names.
"""

import gc
import os
import struct
import time
from typing import Any

_BEGAN = [0.0]
_FILE = os.open(os.environ["BENCH_GC_PAUSES"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def _called(phase: str, info: dict[str, Any]) -> None:
    if phase == "start":
        _BEGAN[0] = time.perf_counter()
    else:
        os.write(_FILE, struct.pack("dd", info["generation"], time.perf_counter() - _BEGAN[0]))


gc.callbacks.append(_called)
