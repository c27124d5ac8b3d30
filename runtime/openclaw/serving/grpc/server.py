"""The gRPC server of one process: inference, health and reflection on one port.

Make it after a fork, in the event loop that runs it: gRPC's threads and descriptors do not survive one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import grpc.aio
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from openclaw.errors import ConfigInvalid
from openclaw.memory.accounting import Account
from openclaw.serving.accesslog import AccessLog
from openclaw.serving.grpc import health, inference_pb2, service
from openclaw.serving.grpc.answering import Inference
from openclaw.serving.grpc.ports import Loading, Recorder, Repository, Served
from openclaw.serving.grpc.queries import Queries
from openclaw.serving.grpc.traffic import Traffic
from openclaw.serving.recording import GRPC
from openclaw.serving.sharedmemory import Regions
from openclaw.serving.tracing import Tracing
from openclaw.serving.watching import Watcher

_LONGEST_MESSAGE = 2**31 - 1
"""More than which no protocol buffer may be."""
_JITTER = 0.1
"""By how much of itself gRPC varies the age of connections."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Where to listen, and the limits.

    Attributes:
        host: an address or name to bind; ``::`` takes IPv4 too.
        port: 0 lets the system choose.
        share_port: whether other processes may listen on the port too, each getting some of the connections.
        max_message_bytes: of one request, unpacked; longer ones end with RESOURCE_EXHAUSTED.
        max_calls: at the same time; further ones end with RESOURCE_EXHAUSTED.
        ping_seconds: how often clients may ask whether a connection still lives, and how often the server does.
        connection_seconds: after which (or a tenth more or less) a connection's client is asked to make another for
            its further calls. It is what spreads clients over new servers and leads them away from stopping ones.
    """

    host: str = "127.0.0.1"
    port: int = 0
    share_port: bool = False
    max_message_bytes: int = 64 * 1024 * 1024
    max_calls: int = 4096
    ping_seconds: int = 30
    connection_seconds: float = 15.0


class GrpcServer:
    """Serves the models of a repository; used from one event loop.

    Args:
        repository: the models.
        settings: where to listen, and the limits.
        loading: loads and unloads models; None where clients may not.
        regions: shared memory for tensors; None where clients may not use it.
        account: grants large messages their memory; None: as much as is asked for.
        statistics: whether the models' statistics are shown.
        recorder: what counts the requests for a model's version.
        tracing: where spans of requests go.
        log: where sampled requests are logged.
    """

    def __init__(
        self,
        repository: Repository,
        settings: Settings,
        *,
        loading: Loading | None = None,
        regions: Regions | None = None,
        account: Account | None = None,
        statistics: bool = False,
        recorder: Callable[[Served], Recorder] | None = None,
        tracing: Tracing | None = None,
        log: AccessLog | None = None,
    ) -> None:
        self._settings = settings
        self._inference = Inference(
            repository,
            regions=regions,
            account=account,
            recorder=recorder,
            watcher=Watcher(GRPC, tracing=tracing, log=log),
        )
        self._queries = Queries(repository, loading=loading, regions=regions, statistics=statistics)
        self._health = health.Health(repository, frozenset({"", service.SERVICE}))
        self._traffic = Traffic()
        self._drained: float | None = None
        self._server: grpc.aio.Server | None = None

    async def start(self) -> int:
        """Listens; gives the port. Raises ConfigInvalid where the address cannot be had."""
        server = grpc.aio.server(options=_options(self._settings), maximum_concurrent_rpcs=self._settings.max_calls)
        handlers = (service.handler(self._inference, self._queries, self._traffic), self._health.handler())
        server.add_generic_rpc_handlers(handlers)
        names = (service.SERVICE, health.SERVICE, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server, pool=_described())
        address = _address(self._settings.host, self._settings.port)
        try:
            port: int = server.add_insecure_port(address)
        except RuntimeError as error:
            raise ConfigInvalid(
                f"gRPC cannot listen on {address}: the port is taken, or the address is not this machine's"
            ) from error
        await server.start()
        self._server = server
        return port

    def drain(self) -> None:
        """Tells health checks to send requests elsewhere; those that come are answered."""
        self._drained = asyncio.get_running_loop().time()
        self._health.drain()

    async def stop(self, grace: float) -> None:
        """Ends once calls have ceased to come and those under way are answered, after ``grace`` seconds at most.

        Calls cease when every client that had a connection when the draining began has made another, elsewhere.
        """
        if self._server is None:
            return
        loop = asyncio.get_running_loop()
        end = loop.time() + grace
        if self._drained is None:
            self.drain()
        moved = (self._drained or 0.0) + self._settings.connection_seconds * (1 + _JITTER)
        await self._traffic.ended(min(end, moved))
        self._health.end()
        self._inference.end_streams()
        await self._server.stop(max(0.0, end - loop.time()))


def _options(settings: Settings) -> list[tuple[str, int]]:
    ping = settings.ping_seconds * 1000
    return [
        ("grpc.max_connection_age_ms", int(settings.connection_seconds * 1000)),
        ("grpc.max_receive_message_length", min(settings.max_message_bytes, _LONGEST_MESSAGE)),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", int(settings.share_port)),
        ("grpc.keepalive_time_ms", ping),
        # Without these, clients that ask more often than every five minutes are thrown out.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", ping // 2),
    ]


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _described() -> DescriptorPool:
    """Every service here in one pool, for reflection; the protocol's messages live in a pool of their own."""
    pool = DescriptorPool()
    for module in (inference_pb2, health_pb2, reflection_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    return pool
