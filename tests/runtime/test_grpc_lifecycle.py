"""A gRPC server from its start to its end: health, reflection, draining, forks."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from grpcserving.calls import (
    ROW,
    SERVICE,
    expected,
    message,
    model_infer,
    refused,
)
from grpcserving.models import Models, OneModel, Running, serve
from openclaw.errors import ConfigInvalid
from openclaw.execute.session import Model
from openclaw.serving.grpc import inference_pb2 as pb
from openclaw.serving.grpc.server import GrpcServer, Settings
from support.waiting import until

pytest_plugins = ["grpcserving.fixtures"]


async def test_health_follows_the_readiness_of_all_and_of_each(digits: OneModel, models: Any) -> None:
    pair = OneModel(Model.from_file(models.pair(), threads=1))
    async with serve(digits, pair) as running, grpc.aio.insecure_channel(running.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)

        async def status(service: str) -> str:
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
            return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))

        names = ("", "inference.GRPCInferenceService", "digits", "pair")
        assert [await status(name) for name in names] == ["SERVING"] * 4
        pair.ready = False
        assert [await status(name) for name in names] == ["NOT_SERVING", "NOT_SERVING", "SERVING", "NOT_SERVING"]
        pair.ready = True
        running.models.out.add("digits")
        assert [await status(name) for name in names] == ["NOT_SERVING", "NOT_SERVING", "NOT_SERVING", "SERVING"]
        running.models.out.clear()
        assert await status("") == "SERVING"
        error = await refused(stub.Check(health_pb2.HealthCheckRequest(service="nothing")))
        assert error.code() is grpc.StatusCode.NOT_FOUND
        error = await refused(channel.unary_unary("/grpc.health.v1.Health/Check")(b"\xff"))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        running.server.drain()
        assert [await status(name) for name in names] == ["NOT_SERVING"] * 4
        assert (await model_infer(channel)(message())).model_name == "digits"


async def test_a_watcher_is_told_of_every_change_until_the_server_ends(
    running: Running, channel: grpc.aio.Channel
) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest(service="digits"))
    unknown = stub.Watch(health_pb2.HealthCheckRequest(service="nothing"))
    assert (await unknown.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
    running.digits.ready = False
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    running.digits.ready = True
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
    await running.server.stop(10)
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert await watch.read() is grpc.aio.EOF


async def test_a_client_that_knows_nothing_finds_the_service_by_reflection(
    running: Running, channel: grpc.aio.Channel
) -> None:
    ask = reflection_pb2.ServerReflectionRequest
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    requests = [ask(list_services="")]
    names = ["grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection", "inference.GRPCInferenceService"]
    requests += [ask(file_containing_symbol=name) for name in names]
    listed, *described = [answer async for answer in stub.ServerReflectionInfo(iter(requests))]
    assert [each.name for each in listed.list_services_response.service] == names
    pool = descriptor_pool.DescriptorPool()
    for answer in described:
        for file in answer.file_descriptor_response.file_descriptor_proto:
            pool.Add(descriptor_pb2.FileDescriptorProto.FromString(file))
    found = pool.FindServiceByName("inference.GRPCInferenceService").methods_by_name["ModelReady"]
    request = message_factory.GetMessageClass(found.input_type)(name="digits")
    answer = await channel.unary_unary(SERVICE + "ModelReady")(request.SerializeToString())
    assert message_factory.GetMessageClass(found.output_type).FromString(answer).ready


async def test_a_stopping_server_answers_what_is_under_way(
    running: Running, channel: grpc.aio.Channel, models: Any
) -> None:
    running.digits.open.clear()
    call = model_infer(channel)(message())
    stream = channel.stream_stream(SERVICE + "ModelStreamInfer", None, pb.ModelStreamInferResponse.FromString)()
    await stream.write(message(ROW * 3).SerializeToString())
    await until(lambda: len(running.digits.coming) == 2)
    stopping = asyncio.create_task(running.server.stop(20))
    await asyncio.wait([stopping], timeout=0.1)
    assert not stopping.done()
    running.digits.open.set()
    assert (await call).raw_output_contents[0] == expected(models).tobytes()
    assert (await stream.read()).infer_response.raw_output_contents[0] == expected(models, ROW * 3).tobytes()
    error = await refused(stream.read())
    assert (error.code(), error.details()) == (
        grpc.StatusCode.UNAVAILABLE,
        "the server is stopping; open the stream anew",
    )
    await stopping
    error = await refused(model_infer(channel)(message()))
    assert error.code() is grpc.StatusCode.UNAVAILABLE


async def test_what_is_stuck_ends_with_the_grace(running: Running, channel: grpc.aio.Channel) -> None:
    running.digits.open.clear()
    call = model_infer(channel)(message())
    await until(lambda: len(running.digits.coming) == 1)
    await running.server.stop(0.05)
    await refused(call)
    await until(lambda: running.digits.coming[0].cancelled())


async def test_a_port_that_is_taken_is_a_clear_error(running: Running, digits: OneModel) -> None:
    other = GrpcServer(Models(digits), Settings(port=running.port))
    with pytest.raises(ConfigInvalid, match=rf"cannot listen on 127\.0\.0\.1:{running.port}"):
        await other.start()


class Forwarder:
    """Leads new connections to ``port`` while old ones stay where they were, as a cluster's network does."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        try:
            yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.port)
        for pump in (self._pump(reader, back), self._pump(there, writer)):
            task = asyncio.create_task(pump)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()


async def test_a_stopping_server_fails_no_call_of_clients_that_can_go_elsewhere(digits: OneModel, models: Any) -> None:
    other = OneModel(Model.from_file(models.digits(), threads=1))
    settings = Settings(connection_seconds=1)
    async with serve(digits, settings=settings) as first, serve(other) as second:
        forwarder = Forwarder(first.port)
        ended = asyncio.Event()
        answered = 0

        async def ask(address: str) -> None:
            nonlocal answered
            options = [("grpc.use_local_subchannel_pool", 1)]
            async with grpc.aio.insecure_channel(address, options=options) as channel:
                infer = model_infer(channel)
                while not ended.is_set():
                    await infer(message())
                    answered += 1

        async with forwarder.listening() as address:
            asking = [asyncio.create_task(ask(address)) for _ in range(8)]
            await until(lambda: answered >= 100)
            forwarder.port = second.port
            first.server.drain()
            await first.server.stop(20)
            seen = answered
            await until(lambda: answered >= seen + 100)
            ended.set()
            await asyncio.gather(*asking)
            assert digits.numbers.execution_count + other.numbers.execution_count == answered


async def _is_refused(call: Awaitable[Any]) -> bool:
    try:
        await call
    except grpc.aio.AioRpcError:
        return True
    return False


async def test_calls_beyond_the_limit_are_refused_and_later_ones_answered(digits: OneModel) -> None:
    async with (
        serve(digits, settings=Settings(max_calls=2)) as running,
        grpc.aio.insecure_channel(running.address) as channel,
    ):
        digits.open.clear()
        held = [model_infer(channel)(message()) for _ in range(2)]
        await until(lambda: len(digits.coming) == 2)
        error = await refused(model_infer(channel)(message()))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        digits.open.set()
        for call in held:
            assert (await call).model_name == "digits"
        # The server counts a call's end a moment after its client has the answer.
        health = health_pb2_grpc.HealthStub(channel)
        async with asyncio.timeout(10):
            while await _is_refused(health.Check(health_pb2.HealthCheckRequest())):
                pass
        assert (await model_infer(channel)(message())).model_name == "digits"


async def test_processes_can_share_a_port(digits: OneModel, models: Any) -> None:
    other = OneModel(Model.from_file(models.digits(), threads=1))
    async with (
        serve(digits, settings=Settings(share_port=True)) as first,
        serve(other, settings=Settings(share_port=True, port=first.port)) as second,
    ):
        assert second.port == first.port

        async def ask() -> None:
            options = [("grpc.use_local_subchannel_pool", 1)]
            async with grpc.aio.insecure_channel(first.address, options=options) as channel:
                await model_infer(channel)(message())

        async with asyncio.timeout(20):
            while not (digits.numbers.execution_count and other.numbers.execution_count):
                await asyncio.gather(*[ask() for _ in range(8)])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


AFTER_A_FORK = """
import asyncio, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import grpc
from grpcserving.calls import message, model_infer
from grpcserving.models import OneModel, serve
from openclaw.execute.session import Model
model = Model.from_file(Path(sys.argv[1]), threads=1)

async def ask():
    async with serve(OneModel(model)) as running:
        async with grpc.aio.insecure_channel(running.address) as channel:
            answer = await model_infer(channel)(message())
            assert len(answer.raw_output_contents[0]) == 40

children = []
for _ in range(2):
    child = os.fork()
    if child == 0:
        asyncio.run(ask())
        os._exit(0)
    children.append(child)
print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
"""


def test_processes_forked_after_import_and_load_can_serve(models: Any) -> None:
    arguments = [sys.executable, "-c", AFTER_A_FORK, str(models.digits()), str(Path(__file__).parents[1])]
    ended = subprocess.run(arguments, capture_output=True, text=True, timeout=60)
    assert ended.stdout.strip() == "[0, 0]", ended.stderr


@pytest.mark.parametrize("workers", [1, 2])
def test_the_command_serves_grpc_and_ends_well_under_its_calls(models: Any, start_server: Any, workers: int) -> None:
    arguments = ("--grpc-port", free_port(), "--workers", workers, "--drain-delay", 0)
    server = start_server(models.digits(), *arguments).wait_ready()
    address = f"127.0.0.1:{arguments[1]}"
    with grpc.insecure_channel(address) as channel:
        infer = channel.unary_unary(SERVICE + "ModelInfer")
        health = health_pb2_grpc.HealthStub(channel)
        answer = pb.ModelInferResponse.FromString(infer(message().SerializeToString(), timeout=20))
        assert answer.raw_output_contents[0] == expected(models).tobytes()
        serving = health.Check(health_pb2.HealthCheckRequest(service="digits"), timeout=20)
        assert serving.status == health_pb2.HealthCheckResponse.SERVING
        assert server.stop() == 0
        with pytest.raises(grpc.RpcError) as caught:
            infer(message().SerializeToString(), timeout=20)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "Traceback" not in server.log
