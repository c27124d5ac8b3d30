"""Calls into onnxruntime's quantization without what it prints, logs and warns of on the way."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Holds back standard output, warnings, and the root logger's messages below errors.

    The library prints its progress, logs advice that does not concern us (to pre-process, which the passes did), and
    sets up the root logger when it is imported.
    """
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    root.setLevel(logging.ERROR)
    # Of a root logger that has a handler, logging.basicConfig leaves handlers and level alone.
    root.addHandler(logging.NullHandler())
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
