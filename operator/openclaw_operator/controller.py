"""The loop: `event -> cache, queue -> reconcile: observe -> decide -> apply -> status`."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any

from openclaw_operator import names
from openclaw_operator.api.v1alpha1 import InferenceService
from openclaw_operator.cluster.cache import Cache
from openclaw_operator.cluster.calm import Calm
from openclaw_operator.cluster.inquiry import Inquiry
from openclaw_operator.cluster.port import ApiError, Cluster, Listing, Pods
from openclaw_operator.cluster.queue import Priority, Queue
from openclaw_operator.config import Config
from openclaw_operator.decide import Decision, Event, decide, refuse
from openclaw_operator.drift import drift
from openclaw_operator.errors import Retry, Terminal
from openclaw_operator.names import Key, Manifest, Ref
from openclaw_operator.observe import Observed, is_ready, observe
from openclaw_operator.telemetry import Telemetry
from openclaw_operator.tiers import question

_OWNED = frozenset(kind.name for kind in names.OWNED_KINDS)

log = logging.getLogger(__name__)

_CONFLICT_DELAY = 1.0
"""Seconds until a conflict is over: the newer version has arrived by then, though it need not be news. A delay that
grows from one conflict to the next would outlast a rollout, in which a Deployment changes with every pod."""

_STEP = 0.5
"""Seconds after which a step of a rollout is looked at. Nobody is told of mere progress that soon anyway."""


class Controller:
    """Brings every service of a cluster to what its spec asks for, and keeps it there."""

    def __init__(
        self,
        cluster: Cluster,
        config: Config,
        *,
        clock: Callable[[], str],
        pods: Pods,
        telemetry: Telemetry | None = None,
    ) -> None:
        """
        Args:
            cluster: Where services and their children live.
            config: Settings.
            clock: The time as RFC 3339, for conditions that change.
            pods: Whom to ask what no watch tells.
            telemetry: Where to count; default: metrics of its own.
        """
        self.cache = Cache()
        self.telemetry = telemetry or Telemetry()
        self.queue: Queue[Key] = Queue(self.reconcile, workers=config.workers)
        self._cluster = cluster
        self._config = config
        self._clock = clock
        self._tolerated: dict[Ref, list[str]] = {}
        self._holding: dict[Key, float] = {}
        self._bereaved: set[Key] = set()
        self._news: dict[Key, list[Event]] = {}
        self._calm: Calm[Key] = Calm(lambda key: self.queue.add(key, Priority.PROGRESS))
        self._inquiry = Inquiry(
            pods, learnt=lambda key: self.queue.add(key, Priority.PROGRESS), telemetry=self.telemetry
        )
        self.telemetry.observe_queue(depth=lambda: len(self.queue), overdue=self.queue.overdue)

    def seen(self, event: str | None, manifest: Manifest) -> None:
        """Takes an event of a watch: ADDED, MODIFIED, DELETED, or None for an object that was listed."""
        key = self.cache.remove(manifest) if event == "DELETED" else self.cache.put(manifest)
        if key is None:
            return
        if event == "DELETED" and manifest["kind"] in _OWNED:
            self._bereaved.add(key)
        if manifest["kind"] == names.SERVICE_KIND.name or event == "DELETED":
            self.queue.add(key, Priority.NEW)
        elif any(map(is_ready, self.cache.children(key))):
            self.queue.add(key, Priority.FINISHING)  # whatever happens to a service with a ready pod may complete it
        else:
            self.queue.add_after(key, _STEP)  # one step of a rollout follows the other: one look does for several

    async def run(self) -> None:
        """Lists everything, then works until cancelled.

        Nothing is decided before everything was listed: a child that was merely not seen yet would be written again.
        """
        await self.resync()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.queue.run())
            group.create_task(self._inquiry.run())
            group.create_task(self._resync_for_ever())

    async def resync(self) -> None:
        """Lists every kind and makes every service due: heals what a watch has lost."""
        await asyncio.gather(*(self.relist(kind) for kind in names.KINDS.values()))
        for key in self.cache.services():
            self.queue.add(key, Priority.PROGRESS)

    async def relist(self, kind: names.Kind) -> Listing:
        """Lists a kind; what is new, or gone, makes its service due."""
        seen = self.cache.seen(kind.name)
        listing = await self._cluster.list(kind)
        for key in self.cache.replace(kind.name, listing.items, seen=seen):
            self.queue.add(key)
        return listing

    async def _resync_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._config.resync_seconds)
            try:
                await self.resync()
            except ApiError as error:
                log.warning("listing everything anew failed, next try in %ss: %s", self._config.resync_seconds, error)

    async def reconcile(self, key: Key) -> float | None:
        """One step for one service. Returns the seconds after which to look again, if at all."""
        service = await self._surviving(key) if key in self._bereaved else self.cache.service(key)
        if service is None or service["metadata"].get("deletionTimestamp"):
            self._holding.pop(key, None)
            self._news.pop(key, None)
            self._calm.forget(key)
            self._inquiry.follow(key, ())
            return None  # its children go with it: Kubernetes collects them by their owner
        observed = observe(self.cache.children(key), owner_uid=service["metadata"]["uid"], tiers=self._inquiry.said)
        with self.telemetry.duration.time():
            try:
                result, delay = await self._step(key, service, observed)
            except Terminal as terminal:
                log.warning("%s: %s: %s", key, terminal.reason, terminal.message)
                result, delay = "refused", None
                await self._tell(key, service, refuse(service, terminal, observed, now=self._clock()))
            except Exception as error:
                self.telemetry.reconciles.labels("retried").inc()
                if not isinstance(error, Retry):
                    log.exception("%s: reconcile failed", key)
                raise
        self.telemetry.reconciles.labels(result).inc()
        return delay

    async def _surviving(self, key: Key) -> Manifest | None:
        """The service of which a child vanished, if there still is one.

        The child may have gone with it, and a watch may have lost that. A service believed alive would have its child
        written again, and collected again, until everything is listed anew.
        """
        self._bereaved.discard(key)  # before asking: what vanishes meanwhile may have gone with it, too
        service = self.cache.service(key)
        if service is None:
            return None
        try:
            live = await self._cluster.service(key)
        except ApiError as error:
            self._bereaved.add(key)
            raise Retry(f"{key}: reading the service failed: {error}", after=error.retry_after) from error
        if live is None:
            self.cache.remove(service)
        else:
            self.cache.put(live)
        return self.cache.service(key)

    async def _step(self, key: Key, service: Manifest, observed: Observed) -> tuple[str, float | None]:
        """Returns what came of it, and the seconds after which to look again."""
        parsed = InferenceService.parse(service)
        decision = decide(parsed, observed, self._config, now=self._clock())
        if await self._carry_out(key, decision):
            self._calm.stir()
            # What was observed is older than what was just written: its status would be out of date at once.
            return "changed", _STEP
        if remaining := self._held(key, decision):
            return "held", remaining
        self._holding.pop(key, None)
        if decision.status:
            await self._tell(key, service, decision)
            if not _merely_of_the_model(parsed.status, decision.status):
                self._calm.stir()
            if decision.later or key in self._news:
                return "told", None if self._waits(key, decision, observed) else 0.0
            self._ask(parsed, observed, revision=decision.status["revision"])
            return "told", None
        if self._waits(key, decision, observed):
            return "deferred", None
        self._calm.forget(key)
        await self._announce(key, service, self._news.pop(key, []))
        if await self._apply_all(key, decision.later):
            return "changed", _STEP
        self._ask(parsed, observed, revision=parsed.status["revision"])
        return "quiet", None

    def _ask(self, service: InferenceService, observed: Observed, *, revision: str) -> None:
        """Has the pods asked that the status is about. Only now: what they say is worth nothing to those that start."""
        key = Key(service.metadata.namespace, service.metadata.name)
        pods = [pod.manifest for pod in observed.live if pod.ready and pod.revision == revision]
        asked = (question(pod, service=key, model=service.model_name) for pod in pods)
        self._inquiry.follow(key, [each for each in asked if each])

    def _waits(self, key: Key, decision: Decision, observed: Observed) -> bool:
        """Whether others have to start before the rest is done for this service, which serves nobody yet.

        That is to tell good news, and to apply what looks after pods that have started. What exists already is
        corrected at once.
        """
        if any(names.ref(each) in observed.children for each in decision.later):
            return False
        return bool(decision.later or key in self._news) and self._calm.defers(key)

    def _held(self, key: Key, decision: Decision) -> float:
        """Seconds for which the status is still to be held back."""
        if decision.status is None or not decision.hold:
            return 0.0
        now = asyncio.get_running_loop().time()
        return max(0.0, self._holding.setdefault(key, now) + decision.hold - now)

    async def _carry_out(self, key: Key, decision: Decision) -> bool:
        """Applies and deletes. Returns whether anything was written."""
        applied = [await self._apply_all(key, wave) for wave in decision.apply]
        await _together([self._delete(key, child) for child in decision.delete])
        return any(applied) or bool(decision.delete)

    async def _apply_all(self, key: Key, manifests: Iterable[Manifest]) -> bool:
        """Applies them at the same time. Returns whether any was."""
        wave = [manifest for manifest in manifests if not self._is_tolerated(manifest)]
        await _together([self._apply(key, manifest) for manifest in wave])
        return bool(wave)

    async def _apply(self, key: Key, manifest: Manifest) -> None:
        try:
            live = await self._cluster.apply(manifest)
        except ApiError as error:
            raise _as_reconcile_error(key, manifest, error) from error
        self.cache.put(live)
        if remaining := drift(_unlocked(manifest), live):
            # The API server stores something else than was asked for. Asking again and again would change nothing.
            self._tolerated[names.ref(manifest)] = remaining
            log.warning("%s: %s differs from what was applied in %s", key, names.ref(manifest), ", ".join(remaining))
        else:
            self._tolerated.pop(names.ref(manifest), None)

    def _is_tolerated(self, manifest: Manifest) -> bool:
        reference = names.ref(manifest)
        if reference not in self._tolerated:
            return False
        key = names.key_of(manifest)
        children = self.cache.children(key) if key else []
        live = next((child for child in children if names.ref(child) == reference), None)
        return live is not None and drift(_unlocked(manifest), live) == self._tolerated[reference]

    async def _delete(self, key: Key, child: Manifest) -> None:
        try:
            await self._cluster.delete(child)
        except ApiError as error:
            raise Retry(f"{key}: deleting {names.ref(child)} failed: {error}", after=error.retry_after) from error
        self.cache.forget(child)

    async def _tell(self, key: Key, service: Manifest, decision: Decision) -> None:
        """Writes the status, then the events that go with it, unless they are good news, which can wait."""
        if decision.status is None:
            return
        try:
            live = await self._cluster.update_status(service, decision.status)
        except ApiError as error:
            if error.status == 404:
                return
            if error.status == 409:
                raise Retry(f"{key}: the service changed meanwhile: {error}", after=_CONFLICT_DELAY) from error
            raise Retry(f"{key}: writing the status failed: {error}", after=error.retry_after) from error
        self.cache.put(live)
        news = [*self._news.pop(key, []), *decision.events]
        if any(event.urgent for event in news):
            await self._announce(key, service, news)
        elif news:
            self._news[key] = news

    async def _announce(self, key: Key, service: Manifest, events: Iterable[Event]) -> None:
        for event in events:
            try:
                await self._cluster.emit(service, event)
            except ApiError as error:
                log.warning("%s: the event %s could not be recorded: %s", key, event.reason, error)


def _merely_of_the_model(before: Manifest, after: Manifest) -> bool:
    """Whether two statuses differ in nothing but what pods say of their model: nobody was started, or got ready."""
    return {**before, "model": None} == {**after, "model": None}


def _unlocked(manifest: Manifest) -> Manifest:
    """The manifest without the version it was tied to."""
    metadata = {field: value for field, value in manifest["metadata"].items() if field != "resourceVersion"}
    return {**manifest, "metadata": metadata}


def _as_reconcile_error(key: Key, manifest: Manifest, error: ApiError) -> Retry | Terminal:
    what = f"{manifest['kind']} {manifest['metadata']['name']}"
    if error.status == 403 and "being terminated" in str(error):
        return Retry(f"{key}: the namespace is going away", after=30.0)
    if error.final:
        return Terminal("Rejected", f"the API server refuses {what}: {error}")
    if error.status == 409 and error.retry_after is None:
        return Retry(f"{key}: {what} was written by somebody else: {error}", after=_CONFLICT_DELAY)
    return Retry(f"{key}: applying {what} failed: {error}", after=error.retry_after)


async def _together(requests: list[Any]) -> None:
    """Awaits all; a failure of one does not keep the others from being carried out. Raises the first failure."""
    results = await asyncio.gather(*requests, return_exceptions=True)
    failures = [result for result in results if isinstance(result, BaseException)]
    # A refusal is the sentence that a user needs; a passing failure beside it is not.
    failures.sort(key=lambda failure: not isinstance(failure, Terminal))
    if failures:
        raise failures[0]
