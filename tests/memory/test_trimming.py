"""What was freed goes back to the kernel: when it is asked for, and after a model was loaded."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

pytestmark = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="another C library than glibc")

RESIDENT = """
import ctypes, sys
from pathlib import Path
from openclaw.memory.trimming import trim

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 >> 20
"""

FREED = """
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]

def taken(mebibytes):
    place = libc.malloc(mebibytes << 20)
    ctypes.memset(place, 1, mebibytes << 20)
    return place

libc.free(taken(30))  # from now on the C library takes what is smaller from its heap
freed = []
for _ in range(40):
    freed.append(taken(2))
    taken(2)
for place in freed:
    libc.free(place)
print(resident())
trim()
print(resident())
"""

LOADED = """
from openclaw.execute.session import Model

before = resident()
model = Model.from_file(Path(sys.argv[1]), threads=1)
print(resident() - before)
"""


def told(program: str, *arguments: str) -> list[int]:
    """The numbers that a process prints."""
    command = [sys.executable, "-c", RESIDENT + program, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return [int(line) for line in ended.stdout.split()]


def test_what_was_freed_between_what_is_kept_goes_back() -> None:
    kept, trimmed = told(FREED)
    assert trimmed <= kept - 60


def test_a_loaded_model_takes_little_more_than_its_weights(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    shapes = [(512, 512, 3, 3)] * 8  # 9 MiB each, which are laid out anew for the kernels
    weights = [
        numpy_helper.from_array(random.random(shape, dtype=np.float32), f"w{number}")
        for number, shape in enumerate(shapes)
    ]
    nodes = [
        helper.make_node("Conv", [f"x{number}" if number else "x", f"w{number}"], [f"x{number + 1}"], pads=[1] * 4)
        for number in range(len(shapes))
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 512, 8, 8]) for name in ("x", "x8"))
    graph = helper.make_graph(nodes, "wide", [x], [y], weights)
    path = tmp_path / "wide.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    (grown,) = told(LOADED, str(path))
    assert grown <= 72 * 1.4
