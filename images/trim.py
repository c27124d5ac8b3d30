"""Deletes from a virtual environment what installed packages carry and serving never reads.

    python3 images/trim.py ENVIRONMENT [--optimizes]

With --optimizes, what changes models stays. A pattern that matches nothing is fine: the images hold different packages.
Whether something was needed after all is what the tests of the images find out.
"""

import shutil
import sys
from pathlib import Path

# These change models and need the `onnx` package, which is not where one serves.
OPTIMIZES = {
    "onnxruntime/transformers": "optimizes",
    "onnxruntime/quantization": "optimizes",
    "onnxruntime/tools": "optimizes",
}

UNUSED = {
    # onnxruntime's Python module has all of it linked in; this is the same library again, for C programs.
    "onnxruntime/capi/libonnxruntime.so.*": "a second copy",
    "onnxruntime/datasets": "examples",
    "numpy/f2py": "compiles Fortran",
    "numpy/distutils": "compiles C",
    "numpy/**/tests": "tests",
    "sympy/**/tests": "tests",
    "onnx/backend/test": "tests",
    "**/*.a": "for a linker",
    "**/*.c": "for a compiler",
    "**/*.h": "for a compiler",
    "**/*.hpp": "for a compiler",
    "**/*.pxd": "for a compiler",
    "**/*.pyx": "for a compiler",
    "**/*.pyi": "for a type checker",
}


def main() -> None:
    environment, *flags = sys.argv[1:]
    (packages,) = Path(environment).glob("lib/python3.*/site-packages")
    before = _size(packages)
    for pattern in UNUSED if "--optimizes" in flags else {**UNUSED, **OPTIMIZES}:
        # Listed first: what is being walked must not change.
        for path in list(packages.glob(pattern)):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    print(f"{packages}: {before / 1e6:.0f} MB, trimmed to {_size(packages) / 1e6:.0f} MB")


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


if __name__ == "__main__":
    main()
