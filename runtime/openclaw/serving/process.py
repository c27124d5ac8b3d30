"""The edge between the operating system's process and the server inside it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import sys
from collections.abc import Coroutine
from importlib import import_module
from typing import Any, NoReturn

_LATER = ("uvloop", "encodings.idna")
"""Modules that a process imports once it serves."""


def run_loop(work: Coroutine[Any, Any, None]) -> None:
    """Runs ``work`` on uvloop where there is one (not on every platform), else on asyncio's own loop."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(work)
    else:
        uvloop.run(work)


def preload() -> None:
    """Imports what serving would import in each process of its own: before they are forked they share it."""
    for name in _LATER:
        with contextlib.suppress(ImportError):
            import_module(name)


def raise_file_limit() -> None:
    """Allows as many open files as may be: each connection is one, and shells still begin with 1024 (setrlimit(2))."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    # Where "unlimited" is more than the kernel gives (macOS), the limit stays.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def leave(code: int) -> NoReturn:
    """Ends the process now.

    The usual way waits for every thread, and a thread inside onnxruntime cannot be interrupted: a stop
    while a model loads, or after the drain timeout, would hang.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
