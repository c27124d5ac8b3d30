"""What carries requests to the models: HTTP on one port, and gRPC on another where it is asked for."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

from openclaw.config import ServerOptions
from openclaw.serving import accesslog, tracing
from openclaw.serving.admission import Admission
from openclaw.serving.exchange import Exchange
from openclaw.serving.http.messages import Limits
from openclaw.serving.http.server import HttpServer
from openclaw.serving.recording import GRPC
from openclaw.serving.repository import Repository
from openclaw.serving.rest import Rest
from openclaw.serving.sharedmemory import Regions

if TYPE_CHECKING:
    from openclaw.serving.grpc.server import GrpcServer

log = logging.getLogger(__name__)

_TRIM_SECONDS = 1.0


class Frontends:
    """The running front ends of one process; made after the fork, since some have threads."""

    def __init__(self, repository: Repository, options: ServerOptions) -> None:
        sampling = accesslog.sampling(os.environ)
        self._options = options
        self._repository = repository
        self._tracing = tracing.from_environment(os.environ)
        self._log = accesslog.AccessLog(sampling) if sampling else None
        self._regions = (
            Regions(max_bytes=options.max_request_bytes, pool=repository.pool) if options.shared_memory else None
        )
        exchange = Exchange(
            repository.telemetry,
            max_bytes=options.max_request_bytes,
            account=repository.account,
            tracing=self._tracing,
            log=self._log,
        )
        rest = Rest(repository, exchange, options=options, regions=self._regions)
        self._http = HttpServer(
            rest,
            limits=Limits(max_body_bytes=options.max_request_bytes),
            memory=Admission(repository, repository.pool),
        )
        self._grpc: GrpcServer | None = None
        self._trimming: asyncio.TimerHandle | None = None

    @classmethod
    async def start(
        cls, repository: Repository, listeners: Sequence[socket.socket], options: ServerOptions
    ) -> Frontends:
        """Begins to answer; raises ConfigInvalid where the gRPC port cannot be had."""
        frontends = cls(repository, options)
        frontends._trim(asyncio.get_running_loop())
        await frontends._http.start(listeners)
        if options.grpc_port is not None:
            await frontends._start_grpc(options.grpc_port)
        return frontends

    def drain(self) -> None:
        """From now on asks every client to hang up."""
        self._http.drain()
        if self._grpc:
            self._grpc.drain()

    async def stop(self, timeout: float) -> None:
        """Stops accepting, and finishes what is in flight, for as many seconds at most."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._http.stop(timeout))
            if self._grpc:
                group.create_task(self._grpc.stop(timeout))
        if self._trimming:
            self._trimming.cancel()
        if self._log:
            self._log.close()
        if self._tracing:
            self._tracing.close()

    def _trim(self, loop: asyncio.AbstractEventLoop) -> None:
        """Gives memory back that nobody asked for lately, now and from time to time."""
        self._repository.pool.trim()
        self._trimming = loop.call_later(_TRIM_SECONDS, self._trim, loop)

    async def _start_grpc(self, port: int) -> None:
        # Only here: it takes long to import, and must not be there before a fork.
        from openclaw.serving.grpc.server import GrpcServer, Settings

        options = self._options
        settings = Settings(
            host=options.host,
            port=port,
            share_port=options.workers > 1,
            max_message_bytes=options.max_request_bytes,
        )
        metrics = self._repository.telemetry.metrics
        self._grpc = GrpcServer(
            self._repository,
            settings,
            loading=self._repository if options.model_control else None,
            regions=self._regions,
            account=self._repository.account,
            statistics=True,
            recorder=lambda served: metrics.requests(served.name, served.version, GRPC),
            tracing=self._tracing,
            log=self._log,
        )
        log.info("gRPC on port %d", await self._grpc.start())
