"""An event loop whose clock jumps to the next thing that is due: hours of back-off pass in milliseconds.

Nothing in it waits for real time, so what a test sees is the same on every machine, every time.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

Result = TypeVar("Result")

_BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


class _Jumping(selectors.DefaultSelector):
    """Waits for nothing: a wait of some seconds moves the clock by as much."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everything waits and nothing is due: this would hang for ever")
        self.now += timeout
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop without real time."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def run(main: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    """Runs a coroutine to its end in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main())


def timestamp() -> str:
    """The virtual time as Kubernetes writes it."""
    passed = timedelta(seconds=asyncio.get_running_loop().time())
    return (_BEGINNING + passed).strftime("%Y-%m-%dT%H:%M:%SZ")
