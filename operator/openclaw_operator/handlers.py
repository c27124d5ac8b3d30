"""What wakes the controller: kopf watches the services, plain watches their children.

Of kopf only `on.event` is used: it then writes nothing to anybody's objects. Children are watched without it, since
one of its events costs over a millisecond of CPU, and a service that comes up brings a dozen of its children's.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import kopf

from openclaw_operator import names
from openclaw_operator.cluster.kubernetes import KubernetesCluster
from openclaw_operator.cluster.port import ApiError
from openclaw_operator.controller import Controller
from openclaw_operator.names import Kind

log = logging.getLogger(__name__)

CHILD_KINDS = (names.POD, *names.OWNED_KINDS)
_RETRY = 1.0  # seconds before a watch that failed is begun anew
_MAX_RETRY = 30.0


def registry(controller: Controller) -> kopf.OperatorRegistry:
    """A handler that passes every event of a service on to the controller."""
    handlers = kopf.OperatorRegistry()
    kind = names.SERVICE_KIND
    touch = _watch_age(controller, kind)

    async def seen(event: Mapping[str, Any], **_: Any) -> None:
        touch()
        controller.seen(event["type"], dict(event["object"]))

    kopf.on.event(kind.group, kind.version, kind.plural, registry=handlers, id=kind.name)(seen)
    kopf.on.login(registry=handlers)(_login)
    return handlers


def settings() -> kopf.OperatorSettings:
    """Kopf's settings: each one that is set has cost somebody a day."""
    chosen = kopf.OperatorSettings()
    chosen.posting.enabled = False
    # Kinds are known beforehand: no rights on namespaces and definitions are needed.
    chosen.scanning.disabled = True
    chosen.peering.standalone = True
    # A watch that a load balancer has silently dropped must end by itself.
    chosen.watching.server_timeout = 600
    chosen.watching.connect_timeout = 10
    chosen.networking.request_timeout = 30
    chosen.networking.connect_timeout = 10
    chosen.watching.chunk_size = 500
    chosen.persistence.diffbase_storage = _NoDiffBase()
    return chosen


async def follow_children(cluster: KubernetesCluster, controller: Controller, *, namespaces: Sequence[str]) -> None:
    """Passes every event of every child on to the controller, until cancelled. No namespaces means all."""
    async with asyncio.TaskGroup() as group:
        for kind in CHILD_KINDS:
            touch = _watch_age(controller, kind)
            for namespace in namespaces or ("",):
                follower = _Follower(
                    cluster=cluster, controller=controller, kind=kind, namespace=namespace, touch=touch
                )
                group.create_task(follower.run(), name=f"watch {kind.plural} {namespace}")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Follower:
    """Follows one kind in one namespace."""

    cluster: KubernetesCluster
    controller: Controller
    kind: Kind
    namespace: str
    touch: Callable[[], None]

    async def run(self) -> None:
        failures = 0
        version = ""
        while True:
            try:
                version = version or (await self.controller.relist(self.kind)).version
                version = await self._watch(since=version)
                failures = 0
            except ApiError as error:
                # Whatever was missed, a listing finds it; 410 says that no more than that has happened.
                version = ""
                failures += error.status != 410
                log.log(
                    logging.DEBUG if error.status == 410 else logging.WARNING,
                    "watch of %s: %s",
                    self.kind.plural,
                    error,
                )
            # A server that ends every watch at once must not be asked without a pause.
            await asyncio.sleep(min(_RETRY * 2.0 ** min(failures, 16), _MAX_RETRY))

    async def _watch(self, *, since: str) -> str:
        """Returns the version from which to go on, once the server has ended the watch."""
        self.touch()
        reached = since
        async for version, event, manifest in self.cluster.watch(self.kind, self.namespace, since=since):
            reached = version
            self.touch()
            if manifest is not None:
                self.controller.seen(event, manifest)
        return reached


def _watch_age(controller: Controller, kind: Kind) -> Callable[[], None]:
    """Registers the age of a watch; returns what to call when an event arrives."""
    loop_time = asyncio.get_running_loop().time
    last = loop_time()

    def touch() -> None:
        nonlocal last
        last = loop_time()

    controller.telemetry.observe_watch(kind.name, age=lambda: loop_time() - last)
    return touch


async def _login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    inside = kopf.login_with_service_account(**kwargs)
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT")
    if not (inside and host and port):
        return inside or kopf.login_with_kubeconfig(**kwargs)
    # As every other client finds the API server: kopf would ask DNS for it, which may be away when it matters most.
    return replace(inside, server=f"https://{f'[{host}]' if ':' in host else host}:{port}")


class _NoDiffBase(kopf.DiffBaseStorage):
    """Remembers nothing: `on.event` is told of every change anyway.

    kopf would otherwise copy each object with each event to find out what changed.
    """

    def build(self, **_: Any) -> Any:
        return {}

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        """Nothing is kept."""
