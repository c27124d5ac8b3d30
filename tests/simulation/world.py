"""A cluster that runs pods, an operator beside it, and the user of both: a whole day of it takes milliseconds."""

import asyncio
import copy
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from openclaw_operator import names
from openclaw_operator.cluster.memory import MemoryCluster
from openclaw_operator.cluster.port import Pods
from openclaw_operator.config import Config
from openclaw_operator.controller import Controller
from openclaw_operator.names import Key, Manifest, Ref
from simulation import virtualtime
from simulation.faults import Api, History, Watch
from simulation.kubelet import Ailment, Kubelet, deployment_ref, healthy
from simulation.servers import Servers
from simulation.services import manifest

KEY = Key("vision", "digits")
LONG = 4000.0
"""Virtual seconds after which everything has come to rest: several listings, and the longest back-off."""


class Operator:
    """One process of the operator."""

    def __init__(self, cluster: MemoryCluster, config: Config, *, pods: Pods, lives: int | None = None) -> None:
        self.api = Api(cluster, lives=lives)
        self.controller = Controller(self.api, config, clock=virtualtime.timestamp, pods=pods)
        rewrite = lambda manifest: self.api.rewrite(manifest)  # noqa: E731 - as it is when the event arrives
        self.watch = Watch(cluster, self.controller.seen, rewrite=rewrite)
        self._tasks = [asyncio.create_task(self._work()), asyncio.create_task(self.watch.run())]

    async def _work(self) -> None:
        """Begins anew where the beginning fails, as a pod does that the kubelet restarts."""
        while True:
            try:
                await self.controller.run()
            except Exception:
                await asyncio.sleep(10)

    async def stop(self) -> None:
        """Ends the process, whatever it is doing."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class World:
    """What a test does to a cluster, and sees of it."""

    def __init__(self, config: Config, ailment: Ailment) -> None:
        uids = itertools.count(1)
        self.config = config
        self.cluster = MemoryCluster(clock=virtualtime.timestamp, new_uid=lambda: f"uid-{next(uids)}")
        self.history = History(self.cluster)
        self.kubelet = Kubelet(self.cluster, ailment)
        self.servers = Servers()
        self.operators: list[Operator] = []

    @property
    def operator(self) -> Operator:
        return self.operators[-1]

    @property
    def writes(self) -> list[str]:
        """What the present operator has written."""
        return self.operator.api.writes

    def start(self, config: Config | None = None, *, lives: int | None = None) -> Operator:
        """Starts an operator; it dies after so many writes, if it has `lives`."""
        self.operators.append(Operator(self.cluster, config or self.config, pods=self.servers, lives=lives))
        return self.operator

    def start_in_the_past(self, moment: int) -> Operator:
        """Starts an operator whose first view is that after so many events; the others follow, one by one."""
        operator = self.start()
        operator.api.past = self.history.objects(moment)
        operator.watch.repeat(self.history.events[moment:])
        return operator

    async def restart(self, config: Config | None = None) -> None:
        await self.operator.stop()
        self.start(config)

    async def settle(self, seconds: float = LONG) -> None:
        """Lets everything come to rest."""
        await asyncio.sleep(seconds)

    async def quiet(self) -> list[str]:
        """What is written although nothing happens any more: nothing, if all is well."""
        before = len(self.writes)
        await self.settle()
        return self.writes[before:]

    async def submit(self, spec: Manifest | None = None) -> None:
        """`kubectl apply` of the service."""
        given = manifest(spec, name=KEY.name, namespace=KEY.namespace)
        given["metadata"] = {"name": KEY.name, "namespace": KEY.namespace}
        await self.cluster.apply(given, manager="kubectl")

    async def withdraw(self) -> None:
        """`kubectl delete` of the service."""
        await self.cluster.delete(self.service)

    @property
    def service(self) -> Manifest:
        found = self.cluster.get(Ref(names.SERVICE_KIND.name, *KEY))
        assert found is not None
        return found

    @property
    def deployment(self) -> Manifest:
        found = self.cluster.get(deployment_ref())
        assert found is not None
        return found

    @property
    def image(self) -> str:
        return str(self.deployment["spec"]["template"]["spec"]["containers"][0]["image"])

    def ready(self) -> tuple[str, str, str]:
        """Status, reason and message of the condition Ready."""
        return self.condition("Ready")

    def condition(self, kind: str) -> tuple[str, str, str]:
        conditions = self.service.get("status", {}).get("conditions", [])
        found = next((each for each in conditions if each["type"] == kind), {})
        return found.get("status", ""), found.get("reason", ""), found.get("message", "")

    def pods(self) -> list[Manifest]:
        return list(self.cluster.all(names.POD.name))

    def objects(self) -> list[Manifest]:
        return [each for kind in names.KINDS for each in self.cluster.all(kind)]

    def names(self, kind: str) -> list[str]:
        return sorted(each["metadata"]["name"] for each in self.cluster.all(kind))

    async def edit(self, kind: str, change: Callable[[Manifest], Any]) -> None:
        """`kubectl edit` of the only object of a kind: the fields that change are owned by kubectl from then on."""
        (live,) = self.cluster.all(kind)
        edited = copy.deepcopy(live)
        change(edited)
        head = {"apiVersion": live["apiVersion"], "kind": kind}
        identity = {"name": live["metadata"]["name"], "namespace": live["metadata"]["namespace"]}
        changed = _changed(live, edited)
        await self.cluster.apply(
            {**changed, **head, "metadata": {**changed.get("metadata", {}), **identity}}, manager="kubectl"
        )

    async def remove(self, kind: str) -> None:
        """`kubectl delete` of every object of a kind."""
        for each in self.cluster.all(kind):
            await self.cluster.delete(each)

    def state(self) -> dict[Ref, Manifest]:
        """Everything there is, without what differs from one run to another: times, counts and chance."""
        return {names.ref(each): _timeless(each) for each in self.objects() if each["kind"] != names.POD.name}


def _changed(before: Manifest, after: Manifest) -> Manifest:
    """The fields of `after` that are not as they were."""
    changed = {}
    for name, value in after.items():
        if isinstance(value, dict) and isinstance(before.get(name), dict):
            if inner := _changed(before[name], value):
                changed[name] = inner
        elif value != before.get(name):
            changed[name] = value
    return changed


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _timeless(item) for name, item in value.items() if name not in _CHANCE}
    if isinstance(value, list):
        return [_timeless(item) for item in value]
    return value


_CHANCE = {
    "uid", "resourceVersion", "generation", "observedGeneration", "creationTimestamp", "lastTransitionTime",
    "managedFields", "openclaw.io/applied",
}  # fmt: skip
"""The stamp is a hash over, among others, the owner's UID."""


@asynccontextmanager
async def _world(config: Config, ailment: Ailment) -> AsyncIterator[World]:
    world = World(config, ailment)
    kubelet = asyncio.create_task(world.kubelet.run())
    try:
        yield world
    finally:
        for operator in world.operators:
            await operator.stop()
        kubelet.cancel()
        with suppress(asyncio.CancelledError):
            await kubelet


def simulate(
    story: Callable[[World], Awaitable[Any]], *, config: Config | None = None, ailment: Ailment = healthy
) -> Any:
    """Runs a story in a world of its own, in virtual time, and returns what it returns."""

    async def main() -> Any:
        async with _world(config or Config(), ailment) as world:
            return await story(world)

    return virtualtime.run(main)
