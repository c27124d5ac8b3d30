"""Memory under a mixed load: what the server holds after the first minute against what it holds at the end."""

from __future__ import annotations

import contextlib
import socket
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from benchmarks.serving import figures, wire
from benchmarks.serving.models import MLP, Arrays, ServedModel
from benchmarks.serving.openloop import OpenLoop
from benchmarks.serving.server import Server, running
from benchmarks.serving.session import samples_of
from benchmarks.serving.subjects import SUBJECTS, Served

SETTLED = 60.0
"""Seconds: caches, pools and the engine's arena have their size by then."""
_WINDOW = 30.0  # seconds over which a median is taken
_CHUNK = 5.0  # seconds between two looks at the memory; then all connections are made anew
_ALLOWED = 0.02
_ROWS, _FEW_ROWS = 32, 2  # of the larger requests, to the small model and to others


@dataclass(frozen=True, slots=True)
class Resident:
    """Bytes that the server held, so many seconds after the load began."""

    at: float
    size: int


@dataclass(frozen=True, slots=True)
class Soaked:
    """What came of it; `growth` is a share: 0.02 is 2 %."""

    model: str
    rate: float
    answered: int
    not_answered: int
    growth: float
    resident: tuple[Resident, ...]

    @property
    def flat(self) -> bool:
        """Whether the target holds."""
        return self.growth <= _ALLOWED

    def document(self) -> dict[str, object]:
        """As JSON has it."""
        return {**asdict(self), "flat": self.flat}


def soak(model: ServedModel, *, seconds: float, rate: float, say: Callable[[str], None]) -> Soaked:
    """Serves `model` with openclaw under a mixed load: JSON and binary, one row and many, and requests that are wrong.

    Raises:
        ServerError: the server does not start.
    """
    served = Served(SUBJECTS[0], model)
    good, bad = _good(model), _bad(model)
    seen, answered, due = [], 0, 0
    with running(served, wire.post(model.name, samples_of(model, 1)[0], binary=False)) as server:
        start = time.monotonic()
        while (at := time.monotonic() - start) < seconds:
            times = figures.evenly(rate, min(_CHUNK, seconds - at))
            done = OpenLoop(server.port, times, requests=good, connections=32).run()
            answered, due = answered + len(done.latencies), due + len(times)
            _misbehave(server, bad)
            seen.append(Resident(round(time.monotonic() - start, 1), server.resident()))
            if int(seen[-1].at / 60) > int(at / 60) or len(seen) == 1:
                say(f"  {seen[-1].at:.0f} s: {seen[-1].size / 2**20:.1f} MiB, {due - answered} of {due} not answered")
    return Soaked(model.name, rate, answered, due - answered, growth(seen), tuple(seen))


def growth(seen: Sequence[Resident], *, settled: float = SETTLED) -> float:
    """How much more is held at the end than once it had settled, as a share: medians of half a minute each.

    A run too short to settle is compared from its middle on.
    """
    end = seen[-1].at
    if end < settled + 2 * _WINDOW:
        settled = end / 2
    window = min(_WINDOW, (end - settled) / 2)
    before = [each.size for each in seen if settled <= each.at <= settled + window]
    after = [each.size for each in seen if each.at >= end - window]
    return statistics.median(after) / statistics.median(before or after) - 1


def _good(model: ServedModel) -> list[bytes]:
    """Requests that are right, of many sizes."""
    requests = []
    for number, arrays in enumerate(samples_of(model, 16)):
        rows = 1 if number % 4 else _ROWS if model is MLP else _FEW_ROWS
        requests.append(wire.post(model.name, _repeated(arrays, rows), binary=number % 2 == 0).encoded())
    return requests


def _repeated(arrays: Arrays, rows: int) -> Arrays:
    return {name: array.repeat(rows, axis=0) for name, array in arrays.items()}


def _bad(model: ServedModel) -> list[bytes]:
    """Requests that are refused, or that end in the middle."""
    arrays = samples_of(model, 1)[0]
    right = wire.post(model.name, arrays, binary=True)
    lying = {**right.headers, wire.HEADER_LENGTH: "999999"}
    cut = {name: array[..., :-1] for name, array in arrays.items()}
    return [
        wire.Post(right.path, {}, b'{"inputs": [').encoded(),
        wire.Post(right.path, lying, right.body).encoded(),
        wire.Post("/v2/models/nobody/infer", {}, b"{}").encoded(),
        wire.post(model.name, {f"{name}_": array for name, array in cut.items()}, binary=False).encoded(),
        right.encoded()[:-7],
    ]


def _misbehave(server: Server, requests: Sequence[bytes]) -> None:
    """Sends each on a connection of its own and leaves, whatever is answered."""
    for request in requests:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", server.port), 5) as connection:
            connection.sendall(request)
            connection.settimeout(0.2)
            connection.recv(1 << 16)
