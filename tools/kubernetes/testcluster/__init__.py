"""Real Kubernetes for tests: a control plane in three seconds, a whole node in fifteen, without Docker.

`python -m testcluster --help` is the command line; `ControlPlane` is what tests use.
"""

from testcluster.commandlines import Settings
from testcluster.controlplane import ControlPlane
from testcluster.errors import ClusterError, CommandError, ComponentError, DeadlineError, MissingToolError

__all__ = [
    "ClusterError",
    "CommandError",
    "ComponentError",
    "ControlPlane",
    "DeadlineError",
    "MissingToolError",
    "Settings",
]
