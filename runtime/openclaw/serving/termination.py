"""Says why the server did not start, to whoever looks: the kubelet's termination log and stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from openclaw.errors import StartupError

DEFAULT_LOG = "/dev/termination-log"

# The kubelet keeps no more of a container's termination message.
LIMIT_BYTES = 4096


def failure_line(error: StartupError, limit: int = LIMIT_BYTES) -> str:
    """One JSON line with ``reason`` and ``message``, cut to ``limit`` bytes of UTF-8 if need be."""
    message = str(error)
    line = _line(error.reason, message)
    while len(line.encode()) > limit and message:
        excess = len(line.encode()) - limit
        # A character may take several bytes, or several more as an escape: cut by the least it can be.
        message = message[: -max(1, excess // 6)]
        line = _line(error.reason, message + "…")
    return line


def report_failure(error: StartupError, environment: Mapping[str, str] = os.environ) -> None:
    """Writes the failure to the termination log, where there is one, and to stderr."""
    line = write_log(error, environment)
    human = sys.stderr.isatty() and environment.get("OPENCLAW_LOG_FORMAT") != "json"
    print(f"openclaw: {error.reason}: {error}" if human else line, file=sys.stderr, flush=True)


def write_log(error: StartupError, environment: Mapping[str, str] = os.environ) -> str:
    """Writes the failure to the termination log, where there is one, and returns the line."""
    line = failure_line(error)
    write_line(line, environment)
    return line


def write_line(line: str, environment: Mapping[str, str] = os.environ) -> None:
    """Writes what the container has to say in the end to the termination log, where there is one."""
    log = Path(environment.get("OPENCLAW_TERMINATION_LOG") or DEFAULT_LOG)
    if "OPENCLAW_TERMINATION_LOG" in environment or log.exists():
        try:
            log.write_text(line + "\n", encoding="utf-8")
        except OSError as cause:
            print(f"the termination log {log} cannot be written: {cause.strerror}", file=sys.stderr)


def _line(reason: str, message: str) -> str:
    return json.dumps({"reason": reason, "message": message}, ensure_ascii=False)
