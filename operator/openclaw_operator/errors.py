"""What can go wrong in a reconcile.

ReconcileError
├── Retry       it may heal by itself: try again after a while
└── Terminal    only a change heals it: becomes a condition, the old workload keeps serving
"""


class ReconcileError(Exception):
    """A reconcile that did not reach its end."""


class Retry(ReconcileError):  # noqa: N818 - the names of the field: what to do, not what went wrong
    """Try again after `after` seconds; without a number, after the queue's back-off."""

    def __init__(self, message: str, *, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


class Terminal(ReconcileError):  # noqa: N818 - as above
    """Trying again is useless until something changes.

    Attributes:
        reason: One CamelCase word, the reason of the condition.
        message: The sentence that a user needs.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
