"""In place of a batcher while its model is on disk only: requests wait until the model is back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from openclaw.errors import DeadlineExceeded, NotReady, Overloaded
from openclaw.execute.session import Array
from openclaw.serving.batching.batcher import Batcher
from openclaw.serving.batching.settings import BatchingSettings

Wake = Callable[[], Awaitable[None]]
"""Has a model brought back; the same work serves all who wait for it. Raises RequestError."""

_RETRY_SECONDS = 1.0


class Dormant:
    """Takes requests as a batcher does, and hands them to one once there is one; used from one event loop.

    Args:
        wake: has the model brought back.
        batcher: the model's by then.
        settings: how many requests may wait.
    """

    def __init__(self, wake: Wake, batcher: Callable[[], Batcher | None], settings: BatchingSettings) -> None:
        self._wake = wake
        self._batcher = batcher
        self._settings = settings
        self._tasks: set[asyncio.Task[list[Array]]] = set()
        self._bytes = 0
        self._closed = False

    @property
    def busy(self) -> bool:
        """Whether requests wait."""
        return bool(self._tasks)

    def submit(
        self, arrays: Mapping[str, Array], outputs: tuple[str, ...], *, deadline: float | None = None
    ) -> asyncio.Future[list[Array]]:
        """As :meth:`Batcher.submit`, which the request goes to later.

        Raises:
            NotReady: the model is being unloaded; the future raises it where the model cannot be brought back.
            Overloaded: too many wait.
        """
        if self._closed:
            raise NotReady("the model is being unloaded")
        nbytes = sum(array.nbytes for array in arrays.values())
        if len(self._tasks) >= self._settings.max_queue_length or self._bytes + nbytes > self._settings.max_queue_bytes:
            raise Overloaded(
                f"{len(self._tasks)} requests wait for the model to be brought back from disk; "
                f"try again in {_RETRY_SECONDS:g} s",
                retry_after=_RETRY_SECONDS,
            )
        task = asyncio.get_running_loop().create_task(self._answer(arrays, outputs, deadline=deadline))
        self._tasks.add(task)
        self._bytes += nbytes
        task.add_done_callback(lambda done: self._left(done, nbytes))
        return task

    async def _answer(
        self, arrays: Mapping[str, Array], outputs: tuple[str, ...], *, deadline: float | None
    ) -> list[Array]:
        try:
            async with asyncio.timeout_at(deadline):
                while (batcher := self._batcher()) is None:
                    if self._closed:
                        raise NotReady("the model is being unloaded")
                    await self._wake()
        except TimeoutError as error:
            raise DeadlineExceeded("the deadline passed before the model was back from disk") from error
        answer = batcher.submit(arrays, outputs, deadline=deadline)
        return answer if isinstance(answer, list) else await answer

    def _left(self, task: asyncio.Task[list[Array]], nbytes: int) -> None:
        self._tasks.discard(task)
        self._bytes -= nbytes

    def oldest_running(self) -> float:
        """Nothing runs."""
        return 0.0

    async def drained(self) -> None:
        """Waits until nobody waits."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    def close(self) -> None:
        """Refuses all who come."""
        self._closed = True
