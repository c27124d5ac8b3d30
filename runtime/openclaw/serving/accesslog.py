"""The access log: one line of JSON for each sampled request, on standard output; off by default.

``OPENCLAW_ACCESS_LOG`` is ``off``, ``all``, ``errors`` (status 400 and above) or a fraction of the requests such
as ``0.01``. A line holds neither the body, nor the query, nor a header but the request's id: what a client may
send there can be a secret. A thread writes, so a reader that stands still never stops the event loop; when
MAX_WAITING_BYTES wait, further lines are dropped and the next line that fits says how many.
"""

from __future__ import annotations

import json
import os
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from openclaw.errors import ConfigInvalid

VARIABLE = "OPENCLAW_ACCESS_LOG"
FLUSH_BYTES = 64 * 1024
FLUSH_SECONDS = 1.0
MAX_WAITING_BYTES = 4 * 1024 * 1024
MAX_TEXT = 1024
"""Characters of a path or an id; the rest is cut."""

# Everything but printable ASCII becomes \uXXXX: no text of a client can steer a terminal or break a line.
_encode = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which requests are logged: with probability ``fraction`` those whose status is at least ``lowest_code``."""

    fraction: float
    lowest_code: int = 0

    def wants(self, code: int) -> bool:
        """Whether to log a request answered with the HTTP status ``code``; drawn anew at each call."""
        return code >= self.lowest_code and (self.fraction >= 1.0 or random.random() < self.fraction)


def sampling(environment: Mapping[str, str]) -> Sampling | None:
    """What the environment asks for; None is off. Raises ConfigInvalid for a value that is not known."""
    value = environment.get(VARIABLE, "off")
    named = {"off": None, "all": Sampling(1.0), "errors": Sampling(1.0, lowest_code=400)}
    if value in named:
        return named[value]
    try:
        fraction = float(value)
    except ValueError:
        fraction = -1.0
    if not 0.0 <= fraction <= 1.0:
        raise ConfigInvalid(f"{VARIABLE} is {value!r:.80}; allowed: off, all, errors, or a fraction from 0 to 1")
    return Sampling(fraction) if fraction else None


@dataclass(frozen=True, slots=True)
class Access:
    """One answered request; times in seconds, sizes in bytes. ``code`` is an HTTP status, for gRPC too."""

    protocol: str
    method: str
    path: str
    model: str
    version: str
    code: int
    duration: float
    bytes_in: int
    bytes_out: int
    request_id: str = ""
    trace_id: str = ""


def line(access: Access, now: datetime) -> bytes:
    """The line, its newline included; ``now`` in UTC."""
    document = {
        "time": now.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z",
        "protocol": access.protocol,
        "method": access.method[:MAX_TEXT],
        "path": access.path[:MAX_TEXT],
        "model": access.model[:MAX_TEXT],
        "version": access.version[:MAX_TEXT],
        "code": access.code,
        "duration_ms": round(access.duration * 1000, 3),
        "bytes_in": access.bytes_in,
        "bytes_out": access.bytes_out,
        "request_id": access.request_id[:MAX_TEXT],
        "trace_id": access.trace_id[:MAX_TEXT],
    }
    return _encode(document).encode() + b"\n"


def _to_stdout(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def _nothing(_: int) -> bool:
    return False


class AccessLog:
    """Takes lines on the event loop and writes them in a thread; make it after a fork.

    Args:
        sampling: which requests are logged.
        write: writes all of the bytes, however long that takes; default: to standard output.
    """

    def __init__(self, sampling: Sampling, write: Callable[[bytes], None] = _to_stdout) -> None:
        self.wants: Callable[[int], bool] = sampling.wants
        self._write = write
        self._changed = threading.Condition()
        self._waiting: list[bytes] = []
        self._bytes = 0
        self._dropped = 0
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    def record(self, access: Access) -> None:
        """Logs one request; ask ``wants`` first."""
        text = line(access, datetime.now(UTC))
        with self._changed:
            if self._bytes + len(text) > MAX_WAITING_BYTES:
                self._dropped += 1
                return
            if self._dropped:
                text = _encode({"dropped_lines": self._dropped}).encode() + b"\n" + text
                self._dropped = 0
            first = not self._waiting
            self._waiting.append(text)
            self._bytes += len(text)
            if first or self._bytes >= FLUSH_BYTES:
                self._changed.notify()

    def close(self, timeout: float = 5.0) -> bool:
        """Writes what waits and ends the thread; False if a reader that stands still prevents it for ``timeout``."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while data := self._next():
            try:
                self._write(data)
            except OSError:
                # Nobody reads standard output any more; requests are answered all the same.
                self.wants = _nothing
                return

    def _next(self) -> bytes:
        """Waits for lines and then for more of them, at most FLUSH_SECONDS; empty when the log was closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            self._changed.wait_for(lambda: self._bytes >= FLUSH_BYTES or self._closing, FLUSH_SECONDS)
            data = b"".join(self._waiting)
            self._waiting.clear()
            self._bytes = 0
        return data
