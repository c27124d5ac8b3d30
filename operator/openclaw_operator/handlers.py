"""kopf watches; nothing more. Every event goes to the controller, whatever its type.

Only `on.event` is used: kopf then writes nothing to anybody's objects.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import kopf

from openclaw_operator import names
from openclaw_operator.controller import Controller
from openclaw_operator.names import Kind


def registry(controller: Controller) -> kopf.OperatorRegistry:
    """Handlers that pass every event of a watched kind on to the controller."""
    handlers = kopf.OperatorRegistry()
    for kind in names.KINDS.values():
        _watch(handlers, kind, controller)
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
    return chosen


def _watch(handlers: kopf.OperatorRegistry, kind: Kind, controller: Controller) -> None:
    loop_time = asyncio.get_running_loop().time
    last = [loop_time()]
    controller.telemetry.observe_watch(kind.name, age=lambda: loop_time() - last[0])

    async def seen(event: Mapping[str, Any], **_: Any) -> None:
        last[0] = loop_time()
        controller.seen(event["type"], dict(event["object"]))

    labels = None if kind is names.SERVICE_KIND else {names.SERVICE_LABEL: kopf.PRESENT}
    register = kopf.on.event(kind.group, kind.version, kind.plural, labels=labels, registry=handlers, id=kind.name)
    register(seen)


async def _login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)
