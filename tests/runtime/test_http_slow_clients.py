"""Clients that take their time: who drips or does not read is cut off, and who only is slow is served."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from openclaw.serving.http.connection import HttpConnection
from openclaw.serving.http.messages import Answer, Limits, Request
from openclaw.serving.http.server import HttpServer
from support.waiting import until
from support.wire import Echo, Site, serving

CHUNKED = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "says"), [(b"GET / HT", "head"), (b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nab", "body")]
)
async def test_a_request_that_never_ends_is_given_up(sent: bytes, says: str) -> None:
    async with serving(Echo(), Limits(head_timeout=0.1, body_timeout=0.1)) as site:
        client = await site.connect()
        client.writer.write(sent)
        status, _, body = await client.answer()
        assert status == 408
        assert says in json.loads(body)["error"]
        assert await client.ended()


DRIPS = {
    "a head": (b"GET / HTTP/1.1\r\nX: ", b"x", "head"),
    "a small body": (b"POST / HTTP/1.1\r\nContent-Length: 65535\r\n\r\n", b"x", "body"),
    "a large body": (b"POST / HTTP/1.1\r\nContent-Length: 65536\r\n\r\n", b"x", "body"),
    "a chunk": (CHUNKED + b"fff\r\n", b"x", "body"),
    "chunks": (CHUNKED, b"1\r\nx\r\n", "body"),
    "chunks that become a large body": (CHUNKED + b"%x\r\n%b\r\n" % (70_000, b"x" * 70_000), b"1\r\nx\r\n", "body"),
    "trailers": (CHUNKED + b"0\r\n", b"A: b\r\n", "body"),
}


async def refused(site: Site, begins: bytes, drip: bytes) -> tuple[int, str]:
    """The status and the sentence that a client gets which goes on dripping."""
    client = await site.connect()
    client.writer.write(begins)
    answer = asyncio.ensure_future(client.answer())
    while not answer.done():
        client.writer.write(drip)
        await asyncio.wait([answer], timeout=0.02)
    status, _, body = await answer
    assert await client.ended()
    return status, json.loads(body)["error"]


async def test_a_request_that_drips_has_no_more_time_than_one_that_stops() -> None:
    # More than passes between two looks at the deadlines: until the next look, each drip could put its own off.
    limits = Limits(head_timeout=1.5, body_timeout=1.5, least_rate=2**20, linger=0.05)
    async with serving(Echo(), limits) as site:
        answers = await asyncio.gather(*[refused(site, begins, drip) for begins, drip, _ in DRIPS.values()])
    for (name, (_, _, what)), answer in zip(DRIPS.items(), answers, strict=True):
        assert answer == (408, f"the request's {what} did not arrive in time"), name


async def test_a_connection_that_says_nothing_is_closed() -> None:
    async with serving(Echo(), Limits(keep_alive=0.1)) as site:
        assert await (await site.connect()).ended()


async def two_looks(server: HttpServer) -> None:
    """Until the server minded all deadlines twice."""
    begun = server.now
    await until(lambda: server.now > begun + 2)


async def test_what_a_pipeline_sent_in_time_is_not_overdue_while_the_answer_before_it_takes_its_time() -> None:
    echo = Echo()
    async with serving(echo, Limits(head_timeout=1.5, body_timeout=1.5)) as site:
        client = await site.connect()
        client.writer.write(b"GET /slow HTTP/1.1\r\n\r\nPOST /2 HTTP/1.1\r\nContent-Length: 2\r\n\r\na")
        await until(lambda: bool(echo.seen))
        # The server does not read on behind /2: that /3 is not whole is not the client's doing.
        client.writer.write(b"bPOST /3 HTTP/1.1\r\nContent-Length: 4\r\n\r\nab")
        await two_looks(site.server)
        echo.go.set()
        assert [(await client.said())["path"] for _ in range(2)] == ["/slow", "/2"]
        client.writer.write(b"cd")
        assert await client.said() == {"method": "POST", "path": "/3", "body": "abcd"}


@pytest.mark.parametrize("rest", [b"GET / HT", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nab"])
async def test_what_never_ends_behind_a_slow_answer_does_not_take_that_away(rest: bytes) -> None:
    echo = Echo()
    async with serving(echo, Limits(head_timeout=0.1, body_timeout=0.1)) as site:
        client = await site.connect()
        client.writer.write(b"GET /slow HTTP/1.1\r\n\r\n" + rest)
        await until(lambda: bool(echo.seen))
        await two_looks(site.server)
        echo.go.set()
        assert (await client.said())["path"] == "/slow"
        assert await client.ended()


async def test_a_client_that_does_not_read_is_cut_off_and_disturbs_nobody() -> None:
    async with serving(Echo(), Limits(write_timeout=0.1)) as site:
        with socket.create_connection(("127.0.0.1", site.port)) as deaf:
            deaf.setblocking(False)
            await asyncio.get_running_loop().sock_sendall(deaf, b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
            await until(lambda: site.server.connections == 1)
            client = await site.connect()
            client.send("GET /x HTTP/1.1", "Host: x")
            assert (await client.said())["path"] == "/x"
            await until(lambda: site.server.connections == 1)


LARGE = bytes(range(256)) * 2**16
"""16 MiB: several times what the kernel keeps of a connection."""
READING = Limits(write_timeout=0.5, least_rate=2**20, linger=0.2)
"""Half a megabyte in half a second, at least."""


def large(request: Request) -> Answer:
    return Answer(200, (memoryview(LARGE),), close=request.path == "/last")


class SlowReader:
    """Asks for a large answer and takes it at its own pace.

    Over a pair of sockets: TCP's timers would add pauses of their own to those of the client, as long as they like.
    """

    def __init__(self, server: HttpServer, path: str) -> None:
        self.got = bytearray()
        self._server, self._path = server, path
        self._socket, self._servers_end = socket.socketpair()
        self._socket.setblocking(False)
        self._servers_end.setblocking(False)

    async def __aenter__(self) -> SlowReader:
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(lambda: HttpConnection(self._server), self._servers_end)
        await loop.sock_sendall(self._socket, f"GET {self._path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._socket.close()

    async def read(self, size: int, *, each: float) -> bool:
        """Reads so many bytes and then not for ``each`` seconds; False: there are no more."""
        left = size
        while left:
            # No byte more, whatever arrived: a connection that is kept alive does not end behind its answer.
            piece = await asyncio.get_running_loop().sock_recv(self._socket, min(left, 2**16))
            if not piece:
                return False
            self.got += piece
            left -= len(piece)
        await asyncio.sleep(each)
        return True

    @property
    def missing(self) -> int:
        """Bytes of the answer that have not been read."""
        head = self.got.find(b"\r\n\r\n") + len(b"\r\n\r\n")
        return head + len(LARGE) - len(self.got)

    @property
    def body(self) -> bytes:
        return bytes(self.got).partition(b"\r\n\r\n")[2]


LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


def told(loop: Callable[[], asyncio.AbstractEventLoop], story: Coroutine[Any, Any, None]) -> None:
    """Runs a story on one kind of event loop: each has buffers of its own."""
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(story)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("path", ["/first", "/last"])
def test_a_client_that_reads_slowly_but_steadily_gets_all_of_its_answer(
    loop: Callable[[], asyncio.AbstractEventLoop], path: str
) -> None:
    async def story() -> None:
        async with serving(large, READING) as site:
            began = site.server.now
            async with SlowReader(site.server, path) as reader:
                while reader.missing and await reader.read(min(2**18, reader.missing), each=0.06):
                    pass
            assert reader.body == LARGE
            assert site.server.now - began > 2, "it took several times as long as a client may not read at all"

    told(loop, story())


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("path", ["/first", "/last"])
@pytest.mark.parametrize("size", [0, 2**16])
def test_a_client_that_does_not_read_or_hardly_reads_its_answer_is_cut_off(
    loop: Callable[[], asyncio.AbstractEventLoop], path: str, size: int
) -> None:
    async def story() -> None:
        async with serving(large, READING) as site:
            async with SlowReader(site.server, path) as reader:
                await until(lambda: site.server.in_flight == 1)
                while site.server.connections:
                    await reader.read(size, each=0.3)
            assert len(reader.body) < len(LARGE) / 2

    told(loop, story())
