"""Free ports on loopback."""

import random
import socket
from contextlib import ExitStack

# Below the range the kernel gives to outgoing connections (32768 and up), so that between choosing a port
# and the component binding it no client of this machine can be handed the same one.
_RANGE = range(12000, 32000)


def free_ports(count: int) -> list[int]:
    """Return `count` different TCP ports that were free on 127.0.0.1 at the time of the call."""
    with ExitStack() as held:
        ports: list[int] = []
        for port in random.sample(_RANGE, len(_RANGE)):
            candidate = held.enter_context(socket.socket())
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
            ports.append(port)
            if len(ports) == count:
                return ports
    raise OSError(f"no {count} free ports on 127.0.0.1 in {_RANGE.start}-{_RANGE.stop - 1}")
