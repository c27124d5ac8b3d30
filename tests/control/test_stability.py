"""Whatever happens, once it stops the cluster reaches what the spec asks for, and stays there.

After Anvil (OSDI 2024), eventually stable reconciliation: requests fail, answers and events get lost or come twice,
operators die, people change their minds and edit what they should not. Then it all ends, and what is left must be
what a cluster has where nothing of it ever happened.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from openclaw_operator.api.v1alpha1 import InferenceService
from openclaw_operator.config import Config
from openclaw_operator.names import Manifest, Ref
from openclaw_operator.render.autoscaler import autoscaled
from simulation import services
from simulation.faults import Fault
from simulation.kubelet import deployment_ref, unpullable
from simulation.services import having
from simulation.virtualtime import VirtualLoop
from simulation.world import World, simulate

CONFIG = Config(revision_history_limit=2)

SPECS = st.sampled_from(
    [
        services.LEAST,
        having(runtime={"workers": 2}),
        having(runtime={"image": "mine:2"}, scaling={"minReplicas": 2, "maxReplicas": 3}),
        having(runtime={"image": "broken:1"}),
        having(scaling={"minReplicas": 2, "maxReplicas": 2}, disruption={"minAvailable": 1}),
        having(scaling={"minReplicas": 1, "maxReplicas": 1}),
        having(runtime={"image": "broken:2"}, scaling={"minReplicas": 3, "maxReplicas": 3}),
        having(suspend=True),
        having(resources={"limits": {"memory": "1Gi"}}, podTemplate={"spec": {"nodeSelector": {"disk": "ssd"}}}),
    ]
)

FAULTS = st.lists(
    st.none() | st.builds(Fault, st.sampled_from([0, 404, 409, 429, 500, 503]), done=st.booleans()),
    min_size=1,
    max_size=12,
)

EDITS: dict[str, Any] = {
    "Deployment": lambda child: child["spec"]["template"]["spec"]["containers"][0].update(image="evil:1"),
    "Service": lambda child: child["spec"]["selector"].update({"openclaw.io/service": "another"}),
    "ServiceAccount": lambda child: child.update(automountServiceAccountToken=True),
}
CHILDREN = ["Deployment", "Service", "ServiceAccount", "ConfigMap", "HorizontalPodAutoscaler", "PodDisruptionBudget"]


class Turmoil(RuleBasedStateMachine):
    """One cluster through a random life."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=VirtualLoop)
        self.spec: Manifest | None = None

    def run(self, doing: Coroutine[Any, Any, Any]) -> None:
        self.runner.run(doing)

    def pass_time(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))

    @initialize()
    def begin(self) -> None:
        async def begin() -> None:
            self.world = World(CONFIG, unpullable)
            self.kubelet = asyncio.create_task(self.world.kubelet.run())
            self.world.start()

        self.run(begin())

    @rule(spec=SPECS)
    def submit(self, spec: Manifest) -> None:
        self.spec = spec
        self.run(self.world.submit(spec))

    @precondition(lambda self: self.spec)
    @rule()
    def withdraw(self) -> None:
        self.spec = None
        self.run(self.world.withdraw())

    @rule(seconds=st.sampled_from([0.01, 0.1, 1.0, 10.0, 700.0]))
    def wait(self, seconds: float) -> None:
        self.pass_time(seconds)

    @rule(faults=FAULTS)
    def fail(self, faults: list[Fault | None]) -> None:
        self.world.operator.api.faults.extend(faults)

    @rule(lossy=st.booleans())
    def lose_events(self, lossy: bool) -> None:
        self.world.operator.watch.lossy = lossy

    @rule(share=st.floats(0, 1))
    def repeat_events(self, share: float) -> None:
        events = self.world.history.events
        self.world.operator.watch.repeat(events[int(len(events) * share) :])

    @rule(lives=st.none() | st.integers(0, 8))
    def kill(self, lives: int | None) -> None:
        async def restart() -> None:
            await self.world.operator.stop()
            self.world.start(lives=lives)

        self.run(restart())

    @rule(share=st.floats(0, 1))
    def travel(self, share: float) -> None:
        async def restart() -> None:
            await self.world.operator.stop()
            self.world.start_in_the_past(int(len(self.world.history.events) * share))

        self.run(restart())

    @rule(kind=st.sampled_from(CHILDREN))
    def remove(self, kind: str) -> None:
        self.run(self.world.remove(kind))

    @rule(kind=st.sampled_from(sorted(EDITS)))
    def edit(self, kind: str) -> None:
        if self.world.names(kind):
            self.run(self.world.edit(kind, EDITS[kind]))

    @rule(replicas=st.integers(0, 4), manager=st.sampled_from(["kubectl", "kube-controller-manager"]))
    def scale(self, replicas: int, manager: str) -> None:
        if self.world.names("Deployment"):
            self.world.cluster.scale(deployment_ref(), replicas, manager=manager)

    @rule(pod=st.integers(0, 3))
    def lose_pod(self, pod: int) -> None:
        async def lose() -> None:
            for each in self.world.pods()[pod : pod + 1]:
                await self.world.cluster.delete(each, grace=False)

        self.run(lose())

    def teardown(self) -> None:
        try:
            if hasattr(self, "world"):
                self.run(self.come_to_rest())
                self.judge()
        finally:
            if hasattr(self, "world"):
                self.run(self.end())
            self.runner.close()

    async def come_to_rest(self) -> None:
        self.world.operator.api.faults.clear()
        self.world.operator.watch.lossy = False
        if self.world.operator.api.lives is not None:
            await self.world.restart()
        await self.world.settle()
        assert await self.world.quiet() == []

    async def end(self) -> None:
        for operator in self.world.operators:
            await operator.stop()
        self.kubelet.cancel()
        await asyncio.gather(self.kubelet, return_exceptions=True)

    def judge(self) -> None:
        if self.spec is None:
            assert self.world.objects() == []
            return
        expected, condition, pods = undisturbed(self.spec)
        assert _comparable(self.world.state()) == _comparable(expected)
        if autoscaled(InferenceService.parse(services.manifest(self.spec))):
            return  # how many there are, and so whether there are enough, is the autoscaler's or somebody's decision
        assert self.world.deployment["spec"]["replicas"] == expected[deployment_ref()]["spec"]["replicas"]
        assert self.world.ready()[:2] == condition
        assert len([pod for pod in self.world.pods() if _serves(pod)]) >= pods


def _serves(pod: Manifest) -> bool:
    return any(each["status"] == "True" for each in pod.get("status", {}).get("conditions", []))


def undisturbed(spec: Manifest) -> tuple[dict[Ref, Manifest], tuple[str, str], int]:
    """What a cluster has where nothing but this spec ever happened: objects, condition, serving pods."""

    async def story(world: World) -> Any:
        world.start()
        await world.submit(spec)
        await world.settle(700)
        return world.state(), world.ready()[:2], len([pod for pod in world.pods() if _serves(pod)])

    return simulate(story, config=CONFIG, ailment=unpullable)  # type: ignore[no-any-return] - what the story returns


def _comparable(state: dict[Ref, Manifest]) -> dict[Ref, Any]:
    """What the spec decides: without history, and without what serving pods, or somebody's scaling, put there."""
    result: dict[Ref, Any] = {}
    for ref, each in state.items():
        if ref.kind in {"ControllerRevision", "ConfigMap"}:
            continue
        spec = {name: value for name, value in each.get("spec", {}).items() if name != "replicas"}
        result[ref] = {name: value for name, value in {**each, "spec": spec}.items() if name != "status"}
    return result


TestTurmoil = Turmoil.TestCase
TestTurmoil.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
