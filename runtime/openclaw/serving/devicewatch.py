"""Notices that a device is gone while a model is on it.

Nothing else would: the next run fails, or never ends, and the one after it. A device that was pulled out, or whose
driver was taken away, is not in the machine's files any more, or they tell what is in the way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

from openclaw.devices.assigning import Assignment, loss

LOOK_SECONDS = 1.0
"""How often the machine's files are read: a load balancer asks about as often whether a server is ready."""
LOOKS = 2
"""In so many looks, one after the other, a device must be missing: one may fall into a reset by its driver."""


class Models(Protocol):
    """The models of a server."""

    def devices(self) -> Mapping[str, Assignment]:
        """By name of each model that is not on the CPU where it is."""

    def lose(self, name: str, why: str) -> None:
        """Has no more requests sent to a model, for what the sentence says."""


async def watch_devices(models: Models, *, every: float = LOOK_SECONDS) -> None:
    """Looks after the devices of models that are not on the CPU, until it is cancelled.

    Args:
        models: of the server, which is told of each whose device is gone.
        every: seconds between two looks.
    """
    missed: dict[Assignment, int] = {}
    while True:
        await asyncio.sleep(every)
        devices = models.devices()
        losses = await asyncio.to_thread(_losses, devices)
        missed = {devices[name]: missed.get(devices[name], 0) + 1 for name in losses}
        for name, why in losses.items():
            # Another version of the model may be there by now, on another device.
            if missed[devices[name]] >= LOOKS and models.devices().get(name) is devices[name]:
                models.lose(name, why)


def _losses(devices: Mapping[str, Assignment]) -> dict[str, str]:
    """By name of a model why it cannot go on where it is; blocks."""
    listed = {manager: manager.list_devices() for manager in {each.manager for each in devices.values()}}
    found = {name: loss(assignment, listed[assignment.manager]) for name, assignment in devices.items()}
    return {name: why for name, why in found.items() if why is not None}
