"""What can go wrong while a test cluster is brought up.

ClusterError
├── MissingToolError   this machine lacks a command, a package or a right
├── CommandError       a command ended with another status than 0
├── ComponentError     a process of the cluster ended by itself; carries the end of its log
└── DeadlineError      a condition did not come true in time
"""

from collections.abc import Sequence


class ClusterError(Exception):
    """Anything that kept a test cluster from doing what was asked; the message is for a person."""


class MissingToolError(ClusterError):
    """This machine lacks something; the message says in one line what, and how to get it."""


class CommandError(ClusterError):
    """A command ended with a status other than 0."""

    def __init__(self, command: Sequence[str], status: int, *, output: str, error: str) -> None:
        self.command = tuple(command)
        self.status = status
        self.output = output
        self.error = error
        said = (error.strip() or output.strip())[-4000:]
        super().__init__(f"`{' '.join(command)}` ended with status {status}: {said}")


class ComponentError(ClusterError):
    """A process that should have stayed up ended, or did not come up in time."""


class DeadlineError(ClusterError):
    """A condition did not come true by its deadline; the message names the condition."""
