"""Our own HTTP/1.1 on a real socket: what a client may do, what it must not, and that none disturbs another."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from unittest.mock import ANY

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openclaw.errors import OverBudget
from openclaw.memory.accounting import Account
from openclaw.memory.pool.objects import Buffer, ObjectPool
from openclaw.serving.http.connection import HttpConnection
from openclaw.serving.http.messages import Answer, Limits, Request
from openclaw.serving.http.server import HttpServer
from support.waiting import until
from support.wire import Echo, serving

POST = ("POST /a%20b?c=d HTTP/1.1", "Host: x", "Content-Length: 4")


async def test_a_connection_carries_one_request_after_the_other() -> None:
    async with serving(Echo()) as site:
        client = await site.connect()
        for _ in range(3):
            client.send(*POST, body=b"1234")
            assert await client.said() == {"method": "POST", "path": "/a b", "body": "1234"}
        assert site.server.connections == 1


async def test_a_pipeline_is_answered_in_order_also_where_the_first_is_slow() -> None:
    echo = Echo()
    async with serving(echo) as site:
        client = await site.connect()
        for path in ("/slow", "/2", "/slow/3", "/4"):
            client.send(f"GET {path} HTTP/1.1", "Host: x")
        await until(lambda: bool(echo.seen))
        echo.go.set()
        assert [(await client.said())["path"] for _ in range(4)] == ["/slow", "/2", "/slow/3", "/4"]


async def test_a_chunked_body_with_trailers_arrives_whole() -> None:
    async with serving(Echo()) as site:
        client = await site.connect()
        client.send("POST /x HTTP/1.1", "Host: x", "Transfer-Encoding: chunked", body=b"3\r\nabc\r\n2\r\nde\r\n")
        client.writer.write(b"0\r\nX-Trailer: 1\r\n\r\n")
        assert (await client.said())["body"] == "abcde"


CHUNKED = b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_a_trailer_changes_no_header(size: int) -> None:
    """It comes after the body was framed, and could say how it is to be read."""
    message = CHUNKED + b"3\r\nabc\r\n0\r\nContent-Encoding: gzip\r\nInference-Header-Content-Length: 2\r\n\r\n"
    echo = Echo()
    async with serving(echo) as site:
        client = await site.connect()
        for _ in range(2):
            for start in range(0, len(message), size):
                client.writer.write(message[start : start + size])
                await asyncio.sleep(0)
            assert (await client.said())["body"] == "abc"
    assert [request.headers for request in echo.seen] == 2 * [[(b"host", b"x"), (b"transfer-encoding", b"chunked")]]


ENDLESS = {
    "a trailer's value": (b"3\r\nabc\r\n0\r\nX: ", b"x" * 500),
    "a trailer's name": (b"0\r\n", b"x" * 500),
    "trailers": (b"3\r\nabc\r\n0\r\n", b"A: b\r\n" * 80),
    "a chunk's extension": (b"3;", b"x" * 500),
    "a later chunk's extension": (b"3\r\nabc\r\n3;a=", b"x" * 500),
    "a chunk's size": (b"", b"0" * 500),
    "trailers behind a large body": (b"%x\r\n%b\r\n0\r\n" % (100_000, b"x" * 100_000), b"A: b\r\n" * 80),
}


@pytest.mark.parametrize(("begins", "goes_on"), ENDLESS.values(), ids=ENDLESS.keys())
async def test_what_never_ends_beside_a_body_is_refused(begins: bytes, goes_on: bytes) -> None:
    echo = Echo()
    async with serving(echo, Limits(max_head_bytes=20_000, linger=0.2)) as site:
        client = await site.connect()
        client.writer.write(CHUNKED + begins)
        answer = asyncio.ensure_future(client.answer())
        while not answer.done():
            client.writer.write(goes_on)
            await asyncio.wait([answer], timeout=0.001)
        status, headers, said = await answer
        assert (status, headers["connection"]) == (431, "close")
        assert json.loads(said)["error"] == "what comes beside the body is too large; allowed: 20000 bytes"
        assert echo.seen == []


@pytest.mark.parametrize(("begins", "goes_on"), ENDLESS.values(), ids=ENDLESS.keys())
def test_no_more_of_it_is_kept_than_a_head_may_have(begins: bytes, goes_on: bytes) -> None:
    limits = Limits(max_head_bytes=20_000)
    wire, connection = feeding(HttpServer(Echo(), limits=limits))
    connection.data_received(CHUNKED + begins)
    fed = 0
    while not wire.said and fed < 10 * limits.max_head_bytes:
        connection.data_received(goes_on)
        fed += len(goes_on)
    assert wire.said[:12] == b"HTTP/1.1 431"
    assert fed <= limits.max_head_bytes + len(goes_on)


def test_as_much_as_a_head_may_have_beside_each_part_of_a_body_is_allowed() -> None:
    limits = Limits(max_head_bytes=1000)
    wire, connection = feeding(HttpServer(Echo(), limits=limits))
    for piece in (CHUNKED, *[b"1;" + b"x" * 900, b"\r\nx\r\n"] * 5, b"0\r\n", b"X: " + b"x" * 900, b"\r\n\r\n"):
        connection.data_received(piece)
    assert wire.said[:12] == b"HTTP/1.1 200"
    assert wire.said.endswith(b'"body": "xxxxx"}')


async def test_a_client_that_asks_first_is_told_to_go_on() -> None:
    async with serving(Echo()) as site:
        client = await site.connect()
        client.send(*POST, "Expect: 100-continue")
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.writer.write(b"1234")
        assert (await client.said())["body"] == "1234"


async def test_head_gets_the_head_alone() -> None:
    async with serving(Echo()) as site:
        client = await site.connect()
        client.send("HEAD /x HTTP/1.1", "Host: x")
        status, headers, _ = await client.answer(has_body=False)
        assert (status, int(headers["content-length"]) > 0) == (200, True)
        client.send("GET /next HTTP/1.1", "Host: x")
        assert (await client.said())["path"] == "/next"


async def test_a_client_that_wants_to_end_is_let_go() -> None:
    for lines in (("GET / HTTP/1.0",), ("GET / HTTP/1.1", "Host: x", "Connection: close")):
        async with serving(Echo()) as site:
            client = await site.connect()
            client.send(*lines)
            _, headers, _ = await client.answer()
            assert headers["connection"] == "close"
            assert await client.ended()


async def test_a_client_that_has_said_everything_still_gets_its_answer() -> None:
    echo = Echo()
    async with serving(echo) as site:
        client = await site.connect()
        client.send("GET /slow HTTP/1.1", "Host: x")
        client.writer.write_eof()
        await until(lambda: bool(echo.seen))
        echo.go.set()
        assert (await client.said())["path"] == "/slow"
        assert await client.ended()


async def test_work_for_a_client_that_is_gone_is_given_up() -> None:
    echo = Echo()
    async with serving(echo) as site:
        client = await site.connect()
        client.send("GET /slow HTTP/1.1", "Host: x")
        await until(lambda: bool(echo.seen))
        # A reset: the end of the stream alone could be that of a client which still listens.
        client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.writer.transport.abort()
        await until(lambda: echo.cancelled == 1 and site.server.connections == 0)


async def test_a_handler_that_fails_costs_its_request_alone(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(Echo()) as site:
        client = await site.connect()
        client.send("GET /fail HTTP/1.1", "Host: x")
        status, _, body = await client.answer()
        assert status == 500
        assert json.loads(body) == {"error": "internal error; the server's log has the reason"}
        client.send("GET /next HTTP/1.1", "Host: x")
        assert (await client.said())["path"] == "/next"
    assert "on purpose" in caplog.text


LIMITS = Limits(max_head_bytes=1000, max_headers=10, max_body_bytes=100, linger=0.2)
REFUSED: dict[str, tuple[bytes, int]] = {
    "a body that says it is too large": (b"POST / HTTP/1.1\r\nContent-Length: 101\r\n\r\n", 413),
    "chunks that become too large": (
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n" + b"x" * 101 + b"\r\n",
        413,
    ),
    "a header that never ends": (b"GET / HTTP/1.1\r\nX: " + b"x" * 2000, 431),
    "a target that never ends": (b"GET /" + b"x" * 2000, 431),
    "too many headers": (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 11 + b"\r\n", 431),
    "two lengths": (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
    "a length and chunks": (
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "a negative length": (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
    "a length beyond all numbers": (b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\n", 400),
    "a coding that is not known": (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "a line that is not HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
}


@pytest.mark.parametrize(("sent", "status"), REFUSED.values(), ids=REFUSED.keys())
async def test_what_is_wrong_is_refused_with_a_sentence_and_the_connection_ends(sent: bytes, status: int) -> None:
    echo = Echo()
    async with serving(echo, LIMITS) as site:
        client = await site.connect()
        client.writer.write(sent)
        said, headers, body = await client.answer()
        assert (said, headers["connection"]) == (status, "close")
        assert json.loads(body)["error"]
        assert await client.ended()
        client.writer.close()
        await until(lambda: site.server.connections == 0)
        assert echo.seen == []


@pytest.mark.parametrize("upgrade", ["h2c", "websocket"])
async def test_an_upgrade_is_answered_in_http(upgrade: str) -> None:
    async with serving(Echo()) as site:
        client = await site.connect()
        client.send("GET /x HTTP/1.1", "Host: x", "Connection: Upgrade", f"Upgrade: {upgrade}", body=b"\x00garbage")
        assert (await client.said())["path"] == "/x"
        assert await client.ended()


async def test_a_large_answer_arrives_whole() -> None:
    async with serving(Echo()) as site:
        client = await site.connect()
        client.send("GET /large HTTP/1.1", "Host: x")
        assert (await client.answer())[2] == b"x" * 2**24


async def test_too_many_connections_are_told_so() -> None:
    async with serving(Echo(), Limits(max_connections=2)) as site:
        clients = [await site.connect() for _ in range(2)]
        await until(lambda: site.server.connections == 2)
        assert (await (await site.connect()).answer())[0] == 503
        clients[0].send("GET /x HTTP/1.1", "Host: x")
        assert (await clients[0].said())["path"] == "/x"


async def test_hundreds_of_connections_are_each_answered() -> None:
    async with serving(Echo()) as site:
        clients = [await site.connect() for _ in range(400)]
        await until(lambda: site.server.connections == 400)
        for number, client in enumerate(clients):
            client.send(f"GET /{number} HTTP/1.1", "Host: x")
        assert [(await client.said())["path"] for client in clients] == [f"/{number}" for number in range(400)]
        for client in clients:
            client.writer.close()
        await until(lambda: site.server.connections == 0)


async def test_a_server_that_drains_asks_clients_to_hang_up_and_finishes_what_it_began() -> None:
    echo = Echo()
    async with serving(echo) as site:
        client = await site.connect()
        client.send("GET /slow HTTP/1.1", "Host: x")
        await until(lambda: bool(echo.seen))
        site.server.drain()
        stopping = asyncio.create_task(site.server.stop(5))
        await asyncio.sleep(0)
        assert site.server.in_flight == 1
        echo.go.set()
        _, headers, body = await client.answer()
        assert headers["connection"] == "close"
        assert json.loads(body)["path"] == "/slow"
        await stopping


def whole(message: bytes, cuts: list[int]) -> list[tuple[str, bytes, list[tuple[bytes, bytes]], bytes]]:
    """What the handler sees of a message that arrives in pieces."""

    async def story() -> list[tuple[str, bytes, list[tuple[bytes, bytes]], bytes]]:
        echo = Echo()
        async with serving(echo) as site:
            client = await site.connect()
            for begin, end in zip([0, *cuts], [*cuts, len(message)], strict=True):
                client.writer.write(message[begin:end])
                await asyncio.sleep(0)
            await client.said()
        return [(each.method, each.target, each.headers, bytes(each.body)) for each in echo.seen]

    return asyncio.run(story())


MESSAGE = b"POST /some/path HTTP/1.1\r\nHost: x\r\nX-Name: some value\r\nContent-Length: 11\r\n\r\nhello world"


@settings(max_examples=40, deadline=None)
@given(cuts=st.lists(st.integers(0, len(MESSAGE)), max_size=12).map(sorted))
def test_a_message_is_the_same_however_it_is_cut(cuts: list[int]) -> None:
    headers = [(b"host", b"x"), (b"x-name", b"some value"), (b"content-length", b"11")]
    assert whole(MESSAGE, cuts) == [("POST", b"/some/path", headers, b"hello world")]


LARGE_BODY = bytes(range(256)) * 1024
"""256 KiB: received past the parser."""


def large(path: str, body: bytes = LARGE_BODY) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def test_large_bodies_arrive_whole_one_after_the_other_with_small_ones_between() -> None:
    echo = Echo()
    async with serving(echo) as site:
        client = await site.connect()
        for round in range(3):
            client.writer.write(large(f"/large/{round}") + b"GET /small HTTP/1.1\r\nHost: x\r\n\r\n" + large("/again"))
            for path in (f"/large/{round}", "/small", "/again"):
                said = await client.said()
                assert said["path"] == path
                assert said["body"].encode("latin-1") == (b"" if path == "/small" else LARGE_BODY)
        assert site.server.connections == 1


async def test_large_bodies_wait_behind_a_slow_answer() -> None:
    echo = Echo()
    async with serving(echo) as site:
        client = await site.connect()
        client.writer.write(large("/slow") + large("/2") + large("/3"))
        await until(lambda: bool(echo.seen))
        echo.go.set()
        for path in ("/slow", "/2", "/3"):
            said = await client.said()
            assert (said["path"], said["body"].encode("latin-1")) == (path, LARGE_BODY)


async def test_a_large_chunked_body_grows_with_what_arrives() -> None:
    piece = b"x" * 50_000
    async with serving(Echo(), limits=Limits(max_body_bytes=1_000_000)) as site:
        client = await site.connect()
        client.send("POST /x HTTP/1.1", "Host: x", "Transfer-Encoding: chunked")
        for _ in range(10):
            client.writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await asyncio.sleep(0)
        client.writer.write(b"0\r\n\r\n")
        assert (await client.said())["body"] == "x" * 500_000
        client.send("POST /x HTTP/1.1", "Host: x", "Transfer-Encoding: chunked")
        for _ in range(21):
            client.writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        status, _, _ = await client.answer()
        assert status == 413


async def test_a_large_body_that_does_not_go_on_is_given_up() -> None:
    async with serving(Echo(), limits=Limits(body_timeout=0.05, linger=0.05)) as site:
        client = await site.connect()
        client.writer.write(large("/x")[:-1])
        status, _, said = await client.answer()
        assert (status, "body did not arrive" in said.decode()) == (408, True)
        assert await client.ended()


async def test_a_large_body_behind_the_last_answer_takes_no_memory() -> None:
    memory = OneAtATime()
    async with serving(Echo(), limits=Limits(linger=0.05), memory=memory) as site:
        client = await site.connect()
        client.writer.write(b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" + large("/never")[:1000])
        assert (await client.said())["path"] == "/last"
        await until(lambda: memory.pool.kept == memory.pool.account.used())
        assert await client.ended()


async def test_a_large_body_that_is_cut_off_ends_its_connection_alone() -> None:
    echo = Echo()
    async with serving(echo) as site:
        client, other = await site.connect(), await site.connect()
        client.writer.write(large("/x")[:-1])
        await client.writer.drain()
        client.writer.write_eof()
        assert await client.ended()
        other.writer.write(large("/y"))
        assert (await other.said())["path"] == "/y"
        assert [request.path for request in echo.seen] == ["/y"]


@settings(max_examples=25, deadline=None)
@given(
    cuts=st.lists(st.integers(0, len(large("/some/path"))), max_size=6).map(sorted), size=st.integers(65_530, 65_542)
)
def test_a_large_message_is_the_same_however_it_is_cut(cuts: list[int], size: int) -> None:
    body = LARGE_BODY[:size]
    message = large("/some/path", body)
    ((method, target, _, arrived),) = whole(message, [at for at in cuts if at <= len(message)])
    assert (method, target, arrived) == ("POST", b"/some/path", body)


class OneAtATime:
    """Memory for one body."""

    def __init__(self) -> None:
        self.pool = ObjectPool(Account(2 * len(LARGE_BODY) - 1))

    def take(self, request: Request, size: int) -> Buffer:
        return self.pool.take(size)

    def refuse(self, request: Request, error: OverBudget) -> Answer:
        return Answer(503, (f"{request.path}: {error.needed}".encode(),))


async def test_a_body_without_memory_is_refused_by_its_head_and_the_next_one_fits_again() -> None:
    memory = OneAtATime()
    echo = Echo()
    async with serving(echo, memory=memory) as site:
        first, second = await site.connect(), await site.connect()
        first.writer.write(large("/first")[:-1])
        await until(lambda: memory.pool.account.used() == len(LARGE_BODY))
        # Its body is never sent.
        second.writer.write(large("/second")[: -len(LARGE_BODY)])
        assert await second.answer() == (503, ANY, f"/second: {len(LARGE_BODY)}".encode())
        assert await second.ended()
        first.writer.write(LARGE_BODY[-1:])
        assert (await first.said())["path"] == "/first"
        echo.seen.clear()
        third = await site.connect()
        third.writer.write(large("/third"))
        assert (await third.said())["path"] == "/third"


async def test_the_memory_of_a_body_is_free_once_it_is_answered_though_the_connection_stays() -> None:
    memory = OneAtATime()
    echo = Echo()
    async with serving(echo, memory=memory) as site:
        client = await site.connect()
        client.writer.write(large("/x"))
        await client.said()
        echo.seen.clear()
        await until(lambda: memory.pool.kept == memory.pool.account.used() == len(LARGE_BODY))
        assert site.server.connections == 1


HEAD = b"POST /known HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
AGAIN = st.lists(
    st.sampled_from(
        [
            HEAD % 3 + b"abc",
            HEAD % 3 + b"\r\n\r",
            HEAD % 8 + b"\r\n\r\n\r\n\r\n",
            b"GET /none HTTP/1.1\r\nHost: x\r\n\r\n",
            b"POST /chunks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            b"\r\nGET /late HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /old HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        ]
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=300, deadline=None)
@given(messages=AGAIN, sizes=st.lists(st.integers(1, 400), max_size=12), last=st.sampled_from([b"", HEAD % 5]))
def test_a_head_that_was_seen_before_means_the_same_again(messages: list[bytes], sizes: list[int], last: bytes) -> None:
    wire = b"".join((*messages, last))
    alone = [request for message in messages for request in read(HttpServer(Echo()), [message])]
    assert len(alone) == len(messages)
    server = HttpServer(Echo())
    # Whole, message by message, and cut anywhere: what was learnt of one helps to read the next.
    for pieces in (messages, [wire], cut(wire, sizes), [*messages, last], cut(wire, sizes)):
        assert read(server, pieces) == alone


class Nowhere(asyncio.Transport):
    """Takes answers, and gives what it is told to in pieces of exactly that size, which no socket promises."""

    def __init__(self) -> None:
        super().__init__()
        self.said = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.said += data

    def can_write_eof(self) -> bool:
        return False

    def get_protocol(self) -> asyncio.BaseProtocol:
        return asyncio.Protocol()

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def is_closing(self) -> bool:
        return False


def read(server: HttpServer, pieces: list[bytes]) -> list[tuple[str, bytes, list[tuple[bytes, bytes]], bytes, bool]]:
    """What a server's handler sees of pieces that arrive on a new connection."""
    server.handler = echo = Echo()
    _, connection = feeding(server)
    for piece in pieces:
        connection.data_received(piece)
    connection.connection_lost(None)
    return [(each.method, each.target, each.headers, bytes(each.body), each.keep_alive) for each in echo.seen]


def feeding(server: HttpServer) -> tuple[Nowhere, HttpConnection]:
    """A new connection, and where its answers go."""
    wire, connection = Nowhere(), HttpConnection(server)
    connection.connection_made(wire)
    return wire, connection


def cut(wire: bytes, sizes: list[int]) -> list[bytes]:
    pieces = []
    for size in sizes:
        pieces.append(wire[:size])
        wire = wire[size:]
    return [piece for piece in (*pieces, wire) if piece]


async def test_the_body_of_a_known_head_may_come_later_or_with_the_next_request() -> None:
    async with serving(Echo()) as site:
        client = await site.connect()
        client.writer.write(HEAD % 3 + b"abc")
        assert (await client.said())["body"] == "abc"
        client.writer.write(HEAD % 3)
        await until(lambda: site.server.in_flight == 1)
        client.writer.write(b"def" + HEAD % 3 + b"ghi")
        assert [(await client.said())["body"] for _ in range(2)] == ["def", "ghi"]


WORDS = (
    b"GET / HTTP/1.1,POST / HTTP/1.1,Host: x,Content-Length: 3,Transfer-Encoding: chunked,abc,Connection: upgrade,"
    b"Upgrade: x,Expect: 100-continue,3,0,,,CONNECT x:1 HTTP/1.1"
).split(b",")
LINES = st.lists(st.sampled_from(WORDS) | st.binary(max_size=20), max_size=12).map(b"\r\n".join)


@settings(max_examples=100, deadline=None)
@given(junk=st.binary(max_size=200) | LINES)
def test_whatever_a_client_sends_the_next_one_is_answered(junk: bytes) -> None:
    async def story() -> None:
        async with serving(Echo(), Limits(linger=0.05)) as site:
            client = await site.connect()
            client.writer.write(junk)
            client.writer.write_eof()
            for status in (line for line in (await client.reader.read()).split(b"\r\n") if line.startswith(b"HTTP/")):
                assert status.split()[1] in {b"100", b"200", b"400", b"408", b"413", b"431", b"501"}
            another = await site.connect()
            another.send("GET /next HTTP/1.1", "Host: x")
            assert (await another.said())["path"] == "/next"

    asyncio.run(story())
