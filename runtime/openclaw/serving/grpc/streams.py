"""Streams of requests answered in order while later ones are under way."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from itertools import islice
from typing import Any

from openclaw.errors import NotReady

MAX_AHEAD = 16
"""Requests of one stream that are under way or answered and not yet sent."""
MAX_AHEAD_BYTES = 1024 * 1024
"""Of requests that are under way: a further one is read only below it, so large ones go one by one."""

Answer = Callable[[bytes], Coroutine[Any, Any, bytes]]


class Streams:
    """The open streams of a server."""

    def __init__(self) -> None:
        self._reading: set[asyncio.Task[bytes | None]] = set()
        self._ended = False

    async def in_order(self, messages: AsyncIterator[bytes], answer: Answer) -> AsyncGenerator[bytes, None]:
        """Gives the answer to each message, in the messages' order.

        Args:
            messages: the requests.
            answer: is called for a message while those before it are under way; its errors end the stream.

        Raises:
            NotReady: the streams were ended, before this one was by its client.
        """
        under_way: deque[tuple[asyncio.Task[bytes], int]] = deque()
        reading: asyncio.Task[bytes | None] | None = self._read(messages)
        cut = False
        try:
            while reading or under_way:
                await _first(reading if _has_room(under_way) else None, under_way)
                if reading and reading.done():
                    cut = reading.cancelled()
                    message = None if cut else reading.result()
                    if message is not None:
                        under_way.append((asyncio.create_task(answer(message)), len(message)))
                    reading = None if message is None else self._read(messages)
                while under_way and under_way[0][0].done():
                    yield under_way.popleft()[0].result()
            if cut:
                raise NotReady("the server is stopping; open the stream anew")
        finally:
            for task in (reading, *(task for task, _ in under_way)):
                if task is not None:
                    task.cancel()

    def end(self) -> None:
        """No stream reads on; the messages that were read are still answered."""
        self._ended = True
        for reading in self._reading:
            reading.cancel()

    def _read(self, messages: AsyncIterator[bytes]) -> asyncio.Task[bytes | None]:
        task = asyncio.create_task(_next(messages))
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)
        if self._ended:
            task.cancel()
        return task


async def _next(messages: AsyncIterator[bytes]) -> bytes | None:
    return await anext(messages, None)


def _has_room(under_way: deque[tuple[asyncio.Task[bytes], int]]) -> bool:
    return len(under_way) < MAX_AHEAD and sum(size for _, size in under_way) < MAX_AHEAD_BYTES


async def _first(reading: asyncio.Task[bytes | None] | None, under_way: deque[tuple[asyncio.Task[bytes], int]]) -> None:
    """Waits for a further message or the oldest answer."""
    tasks: list[asyncio.Task[Any]] = [task for task, _ in islice(under_way, 1)]
    if reading is not None:
        tasks.append(reading)
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
