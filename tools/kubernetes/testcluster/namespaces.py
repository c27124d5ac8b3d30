"""Namespaces of a node's own: network, mounts and processes, which all end with one process."""

import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from testcluster import forward, init
from testcluster.process import Component, run
from testcluster.waiting import until


class Namespaces:
    """Network, mount and process namespaces, held by one process whose death ends everything in them."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._forwards: list[Component] = []
        holder = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]
        self._holder = Component("init", [*holder, sys.executable, "-I", init.__file__], log=logs / "init.log")

    @property
    def enter(self) -> tuple[str, ...]:
        """Command prefix that runs a command inside."""
        of_holder = f"/proc/{self._holder.pid}/ns"
        # The holder is in the new network and mount namespace itself, but only its children are in the new
        # process namespace.
        return (
            "nsenter",
            f"--net={of_holder}/net",
            f"--mount={of_holder}/mnt",
            f"--pid={of_holder}/pid_for_children",
            "--",
        )

    async def start(self) -> None:
        """Make the namespaces. Until this returns, `enter` may still lead to those of this machine."""
        self._holder.start()

        async def ready() -> bool:
            self._holder.check()
            return init.READY in self._holder.tail()

        await until(ready, "the namespaces are made", timeout=10, interval=0.02)

    async def run(self, *command: str | Path, input: str | None = None, timeout: float = 60) -> str:
        """Run a command inside; returns what it printed. Give absolute paths: the working folder is `/`."""
        return await run([*self.enter, *command], input=input, timeout=timeout)

    def forward(self, port: int, to: tuple[str, int]) -> None:
        """Carry connections from 127.0.0.1:`port` of this machine to the address `to` inside."""
        with socket.create_server(("127.0.0.1", port)) as listener:
            host, inner_port = to
            command: Sequence[str | Path] = (
                "nsenter",
                f"--net=/proc/{self._holder.pid}/ns/net",
                "--",
                sys.executable,
                "-I",
                forward.__file__,
                str(listener.fileno()),
                host,
                str(inner_port),
            )
            component = Component(f"forward-{port}", command, log=self._logs / f"forward-{port}.log")
            component.start(pass_fds=[listener.fileno()])
        self._forwards.append(component)

    async def stop(self) -> None:
        """Kill every process inside; with them go the mounts and the network."""
        for component in [*self._forwards, self._holder]:
            await component.stop()
