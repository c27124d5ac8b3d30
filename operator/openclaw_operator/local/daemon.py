"""The process behind `openclaw local`: the cluster in memory, the controller, the supervisor and the gateway."""

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime

from openclaw_operator.cluster.memory import MemoryCluster
from openclaw_operator.cluster.pods import HttpPods
from openclaw_operator.config import Config
from openclaw_operator.controller import Controller
from openclaw_operator.local.api import ControlApi, State, services
from openclaw_operator.local.autoscalers import Autoscalers
from openclaw_operator.local.deployments import Deployments
from openclaw_operator.local.gateway import Gateway
from openclaw_operator.local.home import Home
from openclaw_operator.local.kubelet import Kubelet
from openclaw_operator.local.moments import clock
from openclaw_operator.local.race import race
from openclaw_operator.local.sources import Sources

log = logging.getLogger(__name__)

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Daemon:
    """Everything that runs while local mode is up."""

    def __init__(self, home: Home, *, port: int) -> None:
        """
        Args:
            home: The runtime folder, acquired by this process.
            port: Port of the gateway, free.
        """
        self._home = home
        self._port = port
        self._down = asyncio.Event()
        self._cluster = cluster = MemoryCluster(clock=clock)
        config = Config(
            url_template=f"http://127.0.0.1:{port}/{{namespace}}/{{name}}",
            # Where `openclaw optimize` keeps its results, too.
            optimizer_cache_uri=(home.cache / "optimized").as_uri(),
            workers=4,
        )
        self._controller = Controller(cluster, config, clock=clock, pods=HttpPods())
        self._gateway = Gateway(cluster, home.envoy, port=port, marker=home.folder)
        self._kubelet = Kubelet(cluster, home, router=self._gateway, clock=clock)
        self._deployments = Deployments(cluster, now=lambda: datetime.now(UTC))
        self._autoscalers = Autoscalers(cluster, usage=self._kubelet.usage)
        self._sources = Sources(cluster)
        self._api = ControlApi(
            cluster, self._sources, state=self._state, credentials=self._take_credentials, down=self.down
        )

    def down(self) -> None:
        """Asks for the end of everything."""
        self._down.set()

    async def run(self, ready: Callable[[], None]) -> None:
        """Runs until asked to end; leaves no process and no file behind.

        Args:
            ready: Called once the control API answers.

        Raises:
            GatewayError: the gateway cannot be started.
        """
        # The gateway hears of a pod first: a pod that waits until requests reach it must not wait for an older state.
        for watcher in (self._gateway, self._kubelet, self._deployments, self._controller):
            self._cluster.subscribe(watcher.seen)
        with _handled(_SIGNALS, self.down):
            try:
                await self._gateway.start()
                self._home.announce(self._port)
                await self._api.start(self._home.control)
                ready()
                await race(
                    self._down.wait(),
                    self._controller.run(),
                    self._gateway.run(),
                    self._deployments.queue.run(),
                    self._autoscalers.run(),
                    self._sources.watch(),
                )
            finally:
                await self._stop()
                await self._home.clean()

    async def _stop(self) -> None:
        """The gateway goes first: what comes then is refused at once, instead of failing halfway."""
        await self._api.stop()
        await self._gateway.stop()
        await self._kubelet.stop()

    def _state(self) -> State:
        return State(
            pid=os.getpid(),
            port=self._port,
            files=list(self._sources.files),
            error=self._sources.error,
            services=services(self._cluster),
        )

    def _take_credentials(self, credentials: Mapping[str, str]) -> None:
        self._kubelet.environment = {**self._kubelet.environment, **credentials}


@contextmanager
def _handled(signals: tuple[signal.Signals, ...], act: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for number in signals:
        loop.add_signal_handler(number, act)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
