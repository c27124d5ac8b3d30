"""Carries TCP connections from outside a network namespace to an address inside it.

Run inside the namespace with a listening socket that was opened outside: a socket belongs to the namespace
it was made in, wherever the process that holds it lives. `python forward.py FD HOST PORT`
"""

import asyncio
import contextlib
import socket
import sys

_CHUNK = 1 << 16


async def forward(listener: socket.socket, host: str, port: int) -> None:
    """Accept on `listener` and connect each connection with `host`:`port`, until cancelled."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner_reader, inner_writer = await asyncio.open_connection(host, port)
        except OSError:
            writer.close()
            return
        try:
            await asyncio.gather(_copy(reader, inner_writer), _copy(inner_reader, writer))
        finally:
            inner_writer.close()
            writer.close()

    server = await asyncio.start_server(carry, sock=listener)
    await server.serve_forever()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()


if __name__ == "__main__":
    descriptor, host, port = sys.argv[1:]
    asyncio.run(forward(socket.socket(fileno=int(descriptor)), host, int(port)))
