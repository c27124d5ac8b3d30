"""In which tier of memory pods have their model: whom to ask for it, what an answer says, and what is told of it.

No object of Kubernetes tells what goes on in a container that runs, so the pods themselves are asked, over HTTP.
"""

import ipaddress
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, get_args

import orjson

from openclaw_operator import names
from openclaw_operator.api.v1alpha1 import Tier
from openclaw_operator.names import Key, Manifest

TIERS: tuple[Tier, ...] = get_args(Tier)

Entry = dict[str, Any]


class Incarnation(NamedTuple):
    """A server from its start to its end, by its pod's UID and how often the container was restarted: what it said
    holds for no other one.
    """

    uid: str
    restarts: int


class Question(NamedTuple):
    """What to ask one pod of a service, and where."""

    service: Key
    asked: Incarnation
    host: str
    port: int
    model: str


def incarnation(pod: Manifest) -> Incarnation:
    """The server that runs in a pod now."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    restarts = next((each.get("restartCount", 0) for each in statuses if each["name"] == names.CONTAINER), 0)
    return Incarnation(pod["metadata"].get("uid", ""), restarts)


def address(pod: Manifest) -> tuple[str, int] | None:
    """Where the server of a pod answers; None where it cannot be asked.

    The port is the one that pods are rendered with. Addresses that no pod has are not asked: a pod's status is
    written by others.
    """
    status = pod.get("status") or {}
    if local := (status.get("local") or {}).get("port"):
        return "127.0.0.1", int(local)  # local mode gives each pod a port of its own; an API server drops the field
    try:
        given = ipaddress.ip_address(status.get("podIP") or "")
    except ValueError:
        return None
    host = getattr(given, "ipv4_mapped", None) or given
    if host.is_loopback or host.is_link_local or host.is_multicast or host.is_unspecified:
        return None
    return str(host), names.PORT


def question(pod: Manifest, *, service: Key, model: str) -> Question | None:
    """What to ask a pod that is ready; None where it cannot be asked."""
    place = address(pod)
    return Question(service, incarnation(pod), *place, model) if place else None


def told(answer: bytes) -> str:
    """The tier that the statistics of a model name; empty where they name none. Any image may run: it may be anything.

    Args:
        answer: Body of the answer, JSON as in the statistics extension of the Open Inference Protocol.
    """
    try:
        tier = orjson.loads(answer)["model_stats"][0]["tier"]
    except (ValueError, LookupError, TypeError):
        return ""
    return str(tier) if tier in TIERS else ""


def said(pod: Manifest, known: Mapping[Incarnation, str]) -> str | None:
    """The tier that a pod said its model is in; empty where it said none; None where it still has to be asked."""
    return known.get(incarnation(pod)) if address(pod) else ""


def counted(answers: Iterable[str | None], before: Iterable[Mapping[str, Any]]) -> list[Entry]:
    """How many pods have their model in each tier: an entry for each tier that any of them named, in a fixed order.

    Args:
        answers: What each pod said, as `said` has it.
        before: The entries of now, which stay while a pod still has to be asked: an operator that has just started
            knows no pod's answer, and has no news either.
    """
    every = list(answers)
    if None in every:
        return [dict(entry) for entry in before]
    counts = Counter(every)
    return [{"tier": tier, "pods": counts[tier]} for tier in TIERS if counts[tier]]


def hint(entries: Iterable[Mapping[str, Any]]) -> str:
    """What to add to the news that the model is loaded, where it is not as fast as it could be; else empty."""
    pods = {entry["tier"]: entry["pods"] for entry in entries}
    mapped, every = pods.get("mapped", 0), sum(pods.values())
    if not mapped:
        return ""
    where = f"in {mapped} of {every} pod{'' if every == 1 else 's'}"
    return (
        f"; {where} its weights do not fit into memory and are read from disk as they are needed, which takes longer: "
        "raise resources.limits.memory, or --memory-budget where that is given"
    )
