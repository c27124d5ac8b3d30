"""What stands between the operator and its cluster: an API that fails, and watches that lose and repeat."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from openclaw_operator import names
from openclaw_operator.cluster.memory import MemoryCluster
from openclaw_operator.cluster.port import ApiError, Listing
from openclaw_operator.decide import Event
from openclaw_operator.names import Key, Kind, Manifest, Ref

Answer = TypeVar("Answer")

LATENCY = 0.01  # virtual seconds

Rewrite = Callable[[Manifest], Manifest]


@dataclass(frozen=True, slots=True)
class Fault:
    """One request that fails; `done` says whether it was carried out all the same, as where the answer got lost."""

    status: int
    done: bool = False


class Api:
    """The port to a cluster as one process of the operator has it.

    Attributes:
        writes: Every request to write that arrived, in order.
        faults: Failures of the next requests; None lets one pass.
        lives: Writes after which the process is dead: nothing is answered any more.
        dead: Set once it is.
        rewrite: What is made of every object handed out.
        refuse: The sentence with which a manifest is refused, empty where it is taken.
        past: The objects of which the first listing of each kind is made, in place of those there are.
    """

    def __init__(self, cluster: MemoryCluster, *, lives: int | None = None) -> None:
        self.writes: list[str] = []
        self.faults: deque[Fault | None] = deque()
        self.lives = lives
        self.dead = asyncio.Event()
        self.rewrite: Rewrite = lambda manifest: manifest
        self.refuse: Callable[[Manifest], str] = lambda _: ""
        self.past: dict[str, list[Manifest]] = {}
        self._cluster = cluster

    async def list(self, kind: Kind) -> Listing:
        past = self.past.pop(kind.name, None)  # also where the request fails: nobody is shown the past once more
        listing = await self._request(lambda: self._cluster.list(kind))
        return Listing(kind, tuple(map(self.rewrite, listing.items if past is None else past)))

    async def service(self, key: Key) -> Manifest | None:
        live = await self._request(lambda: self._cluster.service(key))
        return self.rewrite(live) if live else None

    async def apply(self, manifest: Manifest) -> Manifest:
        if sentence := self.refuse(manifest):
            self.writes.append("refused")
            raise ApiError(sentence, status=422, reason="Invalid")
        write = f"apply {manifest['kind']} {manifest['metadata']['name']}"
        return await self._request(lambda: self._cluster.apply(manifest), write=write)

    async def delete(self, manifest: Manifest) -> None:
        async def delete() -> None:
            try:
                await self._cluster.delete(manifest)
            except ApiError as error:
                if error.status != 409:  # as the real adapter has it: another object took the name
                    raise

        await self._request(delete, write=f"delete {manifest['kind']} {manifest['metadata']['name']}")

    async def update_status(self, service: Manifest, status: Manifest) -> Manifest:
        write = f"status {names.key_of(service)}"
        live = await self._request(lambda: self._cluster.update_status(service, status), write=write)
        return self.rewrite(live)

    async def emit(self, service: Manifest, event: Event) -> None:
        await self._request(lambda: self._cluster.emit(service, event), write=f"event {event.reason}")

    async def _request(self, do: Callable[[], Awaitable[Answer]], *, write: str = "") -> Answer:
        if self.dead.is_set() or (write and self.lives == 0):
            self.dead.set()
            await asyncio.Event().wait()
        await asyncio.sleep(LATENCY)
        fault = self.faults.popleft() if self.faults else None
        if fault and not fault.done:
            raise ApiError(f"fault {fault.status}", status=fault.status)
        if write:
            self.writes.append(write)
            if self.lives is not None:
                self.lives -= 1
        answer = await do()
        await asyncio.sleep(LATENCY)
        if fault:
            raise ApiError(f"fault {fault.status}", status=fault.status)
        return answer


class History:
    """Every event of a cluster, and what there was after each of them."""

    def __init__(self, cluster: MemoryCluster) -> None:
        self.events: list[tuple[str, Manifest]] = []
        cluster.subscribe(lambda event, manifest: self.events.append((event, manifest)))

    def objects(self, moment: int) -> dict[str, list[Manifest]]:
        """What there was after so many events, by kind."""
        alive: dict[Ref, Manifest] = {}
        for event, manifest in self.events[:moment]:
            if event == "DELETED":
                del alive[names.ref(manifest)]
            else:
                alive[names.ref(manifest)] = manifest
        return {kind: [each for ref, each in alive.items() if ref.kind == kind] for kind in names.KINDS}


class Watch:
    """Carries events from a cluster to a controller, in order, a little late.

    Attributes:
        lossy: While set, every event is lost.
    """

    def __init__(self, cluster: MemoryCluster, deliver: Callable[[str, Manifest], None], *, rewrite: Rewrite) -> None:
        self.lossy = False
        self._deliver = deliver
        self._rewrite = rewrite
        self._pending: asyncio.Queue[tuple[str, Manifest]] = asyncio.Queue()
        self._end = cluster.subscribe(self._seen)

    def _seen(self, event: str, manifest: Manifest) -> None:
        if not self.lossy:
            self._pending.put_nowait((event, manifest))

    def repeat(self, events: Iterable[tuple[str, Manifest]]) -> None:
        """Delivers what happened before: a watch that began at an old version."""
        for event in events:
            self._pending.put_nowait(event)

    async def run(self) -> None:
        """Delivers until cancelled."""
        try:
            while True:
                event, manifest = await self._pending.get()
                await asyncio.sleep(LATENCY * 1.5)
                self._deliver(event, self._rewrite(manifest))
        finally:
            self._end()
