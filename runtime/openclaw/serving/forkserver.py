"""The process that loads the models once and becomes every worker by forking.

A worker shares with this process and with its siblings whatever loading left in memory, weights first: pages are
copied only where somebody writes (fork(2)). So nothing here starts a thread or an event loop: a fork copies the
one thread that forks, and a lock held by any other would stay held for ever.

It is itself forked from the parent, before that starts a thread or an event loop, so that all of them have what they
imported once. One that died is replaced by a process of its own, which the parent could not fork any more:

    python -m openclaw.serving.forkserver CONTROL

with the descriptor of a socket to the parent.

No threads is also why a session whose inferences take several threads is not loaded here but in each worker: its
threads would be missing there. So are those of any engine but onnxruntime's own kernels, whose threads are its own
affair, and of any device but the CPU, whose driver a forked process cannot use.

Over the control socket (one message each, so nothing is ever read in halves):

    parent -> here    b"load CONFIG_JSON" first, with the descriptor of the counters that all workers share;
                      b"fork SLOT", with the worker's end of its conversation;  b"kill PID"
    here -> parent    {"loaded": true} or the line of a failure;  {"forked": PID};  {"ended": PID, "code": CODE}
"""

from __future__ import annotations

import gc
import json
import logging
import os
import select
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from openclaw.config import ServerConfig, parse
from openclaw.errors import StartupError
from openclaw.execute.engines import OWN, named_by
from openclaw.execute.threads import threads_of
from openclaw.memory.trimming import trim
from openclaw.serving import logs
from openclaw.serving.counters import SharedCounters
from openclaw.serving.loader import load_local
from openclaw.serving.loading import Loaded
from openclaw.serving.process import leave
from openclaw.serving.termination import failure_line
from openclaw.serving.worker import run_worker
from openclaw.storage.uri import parse as parse_uri

log = logging.getLogger(__name__)

MESSAGE_BYTES = 8192
_CONFIG_BYTES = 1 << 20
"""More than the kernel lets a message have."""


def shares_sessions(config: ServerConfig) -> bool:
    """Whether workers can share what was loaded before they were forked; the models are local files by now."""
    own = (named_by(Path(parse_uri(model.uri).path)) == OWN for model in config.all_models)
    return threads_of(config) == 1 and config.server.device in (None, "cpu") and all(own)


class ForkServer:
    """Forks workers on request, and reports their ends, until the parent is gone."""

    def __init__(self, config: ServerConfig, counters: SharedCounters, control: socket.socket) -> None:
        self._config = config
        self._counters = counters
        self._control = control
        self._models: list[Loaded] | None = None
        self._workers: set[int] = set()

    def load(self) -> None:
        """Loads what workers can share; raises StartupError."""
        if shares_sessions(self._config):
            self._models = load_local(self._config)
        # What is here stays: collections in the workers would only copy its pages to look at it.
        gc.collect()
        gc.freeze()
        trim()
        self._say({"loaded": True})

    def serve(self) -> None:
        """Obeys the parent; returns once it is gone. In a forked worker it does not return."""
        with _child_signals() as ends:
            while True:
                readable, _, _ = select.select([self._control.fileno(), ends], [], [])
                if ends in readable:
                    os.read(ends, MESSAGE_BYTES)
                    self._reap()
                if self._control.fileno() in readable and not self._obey():
                    return

    def _obey(self) -> bool:
        message, descriptors = _heard(self._control, MESSAGE_BYTES)
        match message.split():
            case [b"fork", slot]:
                self._fork(int(slot), socket.socket(fileno=descriptors[0]))
            case [b"kill", pid]:
                # Only a child that was not reaped: its number cannot have gone to another process.
                if int(pid) in self._workers:
                    os.kill(int(pid), signal.SIGKILL)
            case _:
                return False
        return True

    def _fork(self, slot: int, conversation: socket.socket) -> None:
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._control.close()
            run_worker(self._config, self._counters, slot=slot, models=self._models, conversation=conversation)
        self._workers.add(pid)
        conversation.close()
        self._say({"forked": pid})

    def _reap(self) -> None:
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                self._workers.discard(pid)
                self._say({"ended": pid, "code": os.waitstatus_to_exitcode(status)})

    def _say(self, message: dict[str, object]) -> None:
        _tell(self._control, json.dumps(message))


def _heard(parent: socket.socket, most: int) -> tuple[bytes, list[int]]:
    """A message of the parent and the descriptor that came with it; an empty one once the parent is gone."""
    try:
        message, descriptors, _, _ = socket.recv_fds(parent, most, 1)
    except ConnectionResetError:  # the parent went before it had read everything
        return b"", []
    return message, descriptors


def _tell(parent: socket.socket, line: str) -> None:
    with suppress(BrokenPipeError, ConnectionResetError):  # the parent is gone: the next read says so
        parent.send(line.encode())


@contextmanager
def _child_signals() -> Iterator[int]:
    """A descriptor that is readable once a child ended."""
    ends, wakeup = os.pipe()
    os.set_blocking(wakeup, False)
    signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    try:
        yield ends
    finally:
        signal.set_wakeup_fd(-1)
        os.close(ends)
        os.close(wakeup)


def run(control: socket.socket) -> NoReturn:
    """Makes this process the fork server, which ends with its parent; a failure goes there as one JSON line."""
    # Ctrl-C reaches the whole process group; the parent hears it too and says what to do.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    code = 1
    try:
        _serve(control)
        code = 0
    except StartupError as error:
        _tell(control, failure_line(error))
        code = error.exit_code
    except Exception:
        # What called this belongs to the process that was forked, and must not go on in this one, or in a worker.
        log.exception("a process that serves failed")
    leave(code)


def _serve(control: socket.socket) -> None:
    message, descriptors = _heard(control, _CONFIG_BYTES)
    if not message:
        return
    config = parse(json.loads(message.removeprefix(b"load ")))
    server = ForkServer(config, SharedCounters(config.server.workers, descriptor=descriptors[0]), control)
    server.load()
    server.serve()


def main() -> None:
    """The fork server as a process that was started."""
    logs.configure(os.environ)
    run(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
