"""Writes the Python of the inference protocol's messages beside their .proto file: ``python tools/proto/generate.py``.

The messages get a descriptor pool of their own. In the process-wide one, where the compiler puts them, two
packages that both define the public package ``inference`` (any client of the protocol does) cannot be imported
together.
"""

from __future__ import annotations

import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

RUNTIME = Path(__file__).parents[2] / "runtime"
PROTO = Path("openclaw/serving/grpc/inference.proto")

_SHARED_POOL = "_descriptor_pool.Default()"
_OWN_POOL = "_descriptor_pool.DescriptorPool()"
_NOT_OURS = "# ruff: noqa\n# fmt: off\n"
_LOOSE = '# mypy: disable-error-code="type-arg"\n'


def generate() -> dict[Path, str]:
    """The generated files by their path; raises RuntimeError where the compiler refuses the .proto or has changed."""
    with tempfile.TemporaryDirectory() as folder:
        includes = [f"-I{RUNTIME}", f"-I{files('grpc_tools') / '_proto'}"]
        code = protoc.main(["protoc", *includes, f"--python_out={folder}", f"--pyi_out={folder}", str(PROTO)])
        if code != 0:
            raise RuntimeError(f"the protocol buffer compiler ended with {code}; its reason is above")
        stem = Path(folder, PROTO.with_name(PROTO.stem + "_pb2"))
        code_text = stem.with_suffix(".py").read_text()
        stub_text = stem.with_suffix(".pyi").read_text()
    if code_text.count(_SHARED_POOL) != 1:
        raise RuntimeError(f"{_SHARED_POOL} is not once in what the compiler wrote; it has changed")
    target = RUNTIME / PROTO.with_name(PROTO.stem + "_pb2")
    return {
        target.with_suffix(".py"): _NOT_OURS + code_text.replace(_SHARED_POOL, _OWN_POOL),
        target.with_suffix(".pyi"): _NOT_OURS + _LOOSE + stub_text,
    }


def main() -> int:
    """Writes the files."""
    for path, text in generate().items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
