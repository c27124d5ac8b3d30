"""Process 1 of a node's process namespace: it reaps what containerd's shims leave, and nothing else.

When it is killed the kernel kills every process of the namespace, which is how a node ends.
"""

import os
import signal

READY = "ready"
"""Printed once the namespaces are made: this process is the first to run in all of them."""


def main() -> None:
    """Reap children until killed."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    print(READY, flush=True)
    while True:
        signal.sigwait({signal.SIGCHLD})
        _reap()


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


if __name__ == "__main__":
    main()
