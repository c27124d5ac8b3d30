"""The components of one cluster, watched together: when one dies, waiting for another makes no sense."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

from testcluster.errors import ComponentError, DeadlineError
from testcluster.process import Component
from testcluster.waiting import until

_START_TIMEOUT = 60  # seconds for one component; a few are usual


class Components:
    """Long-lived processes by name, each with a log in one folder."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self._by_name: dict[str, Component] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def __iter__(self) -> Iterator[Component]:
        return iter(self._by_name.values())

    def launch(self, name: str, command: Sequence[str | Path], *, enter: Sequence[str] = ()) -> None:
        """Start `command` as component `name`, behind the command prefix `enter`."""
        component = Component(name, command, log=self.logs / f"{name}.log")
        self._by_name[name] = component
        component.start(enter=enter)

    async def until(self, name: str, condition: Callable[[], Awaitable[bool]]) -> None:
        """Wait for `condition`, which says that component `name` works.

        Raises:
            ComponentError: a component ended, or a minute passed; the end of the log in question is shown.
        """

        async def alive_and_so() -> bool:
            for component in self:
                component.check()
            return await condition()

        try:
            await until(alive_and_so, name, timeout=_START_TIMEOUT)
        except DeadlineError as late:
            log = self._by_name[name].tail()
            raise ComponentError(f"{name} did not work after {_START_TIMEOUT} s; its log ends with:\n{log}") from late

    async def stop(self) -> None:
        """Kill them all, the latest first."""
        for component in reversed(self._by_name.values()):
            await component.stop()
