"""Times as Kubernetes writes them: RFC 3339, UTC, whole seconds."""

from datetime import UTC, datetime


def rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parsed(text: str) -> datetime:
    return datetime.fromisoformat(text)


def clock() -> str:
    """The time now."""
    return rfc3339(datetime.now(UTC))


def age(since: str, now: datetime) -> str:
    """A duration as `kubectl` shows it: 5s, 3m, 2h, 4d."""
    seconds = max(int((now - parsed(since)).total_seconds()), 0)
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"
