"""Which pool a server's buffers come from."""

from __future__ import annotations

from collections.abc import Mapping

from openclaw.errors import ConfigInvalid
from openclaw.memory.accounting import Account
from openclaw.memory.pool.objects import ObjectPool

VARIABLE = "OPENCLAW_LOCK_BUFFERS"
_CHOICES = ("off", "on")


def pool_of(account: Account, environment: Mapping[str, str]) -> ObjectPool:
    """A pool of buffers that the environment asks for; raises ConfigInvalid for a value that is not known."""
    value = environment.get(VARIABLE, "off")
    if value not in _CHOICES:
        raise ConfigInvalid(f"{VARIABLE} is {value!r:.80}; allowed: {', '.join(_CHOICES)}")
    if value == "off":
        return ObjectPool(account)
    # A start that does not ask for it need not wait for it.
    from openclaw.memory.pool.locked import LockedPool, locked, pinned

    return LockedPool(account, lock=pinned() or locked)
