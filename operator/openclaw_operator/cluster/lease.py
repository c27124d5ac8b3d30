"""A Lease that one replica holds: only its holder writes.

The election is the `kubernetes` package's; added is that an API server that does not answer for a moment counts as
a renewal that failed, not as the end of the process, and that a holder that stops gives the Lease back.
"""

import asyncio
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any

import aiohttp
from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.leaderelection import electionconfig, leaderelection
from kubernetes.aio.leaderelection.resourcelock.leaselock import LeaseLock

_UNREACHABLE = (aiohttp.ClientError, asyncio.TimeoutError, OSError)
_RELEASE_ATTEMPTS = 3


class LeaseLostError(Exception):
    """The Lease could not be renewed in time: another replica may be writing already."""


async def while_leading(
    work: Callable[[], Coroutine[Any, Any, None]],
    *,
    api: client.ApiClient,
    name: str,
    namespace: str,
    identity: str,
    seconds: int,
    stop: asyncio.Event,
) -> None:
    """Waits until the Lease is held, then works until `work` ends or the Lease is lost.

    Args:
        work: What only the holder may do; cancelled when the Lease is lost.
        api: Where and as whom to ask.
        name: Name of the Lease.
        namespace: Namespace of the Lease.
        identity: Name of this replica, unique among them.
        seconds: Time after which a Lease that is not renewed may be taken over.
        stop: Ends the wait for the Lease.

    Raises:
        LeaseLostError: the Lease was lost while working.
    """
    lock = _Lock(name, namespace, identity, api)
    leading = asyncio.Event()

    async def lead() -> None:
        leading.set()

    config = electionconfig.Config(
        lock,
        lease_duration=seconds,
        renew_deadline=seconds * 2 / 3,
        retry_period=max(1.0, seconds / 7),
        onstarted_leading=lead,
        onstopped_leading=_nothing,
    )
    election = asyncio.create_task(leaderelection.LeaderElection(config).run(), name="lease")
    waiting = [asyncio.create_task(leading.wait()), asyncio.create_task(stop.wait())]
    working: asyncio.Future[None] | None = None
    try:
        await asyncio.wait({election, *waiting}, return_when=asyncio.FIRST_COMPLETED)
        if leading.is_set():
            working = asyncio.ensure_future(work())
            await asyncio.wait({election, working}, return_when=asyncio.FIRST_COMPLETED)
        if election.done():
            election.result()
            raise LeaseLostError(f"the Lease {namespace}/{name} could not be renewed within {seconds} s")
        if working is not None:
            await working
    finally:
        tasks: list[asyncio.Future[Any]] = [election, *waiting, *([working] if working is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await lock.release()


async def _nothing() -> None:
    """What is done about a lost Lease is done by whoever waits for the election."""


class _Lock(LeaseLock):
    _held = False  # whether it ever was

    async def get(self, name: str, namespace: str) -> tuple[bool, Any]:
        try:
            return await super().get(name, namespace)
        except _UNREACHABLE as error:
            return False, ApiException(status=0, reason=str(error) or type(error).__name__)

    async def create(self, name: str, namespace: str, election_record: Any) -> bool:
        # Not the package's own: version 37 passes `pretty=True`, which its typed client refuses.
        lease = client.V1Lease(metadata=client.V1ObjectMeta(name=name), spec=self.update_lease(election_record))
        try:
            await self.api_instance.create_namespaced_lease(namespace, lease)
        except (ApiException, *_UNREACHABLE):
            return False
        self._held = True
        return True

    async def update(self, name: str, namespace: str, updated_record: Any) -> bool:
        try:
            updated = bool(await super().update(name, namespace, updated_record))
        except _UNREACHABLE:
            return False
        self._held = self._held or updated
        return updated

    async def release(self) -> None:
        """Gives the Lease back, so that another replica need not wait for it to run out."""
        if not self._held:
            return
        for _ in range(_RELEASE_ATTEMPTS):
            try:
                # Read anew: what was read for the last renewal is older than that renewal.
                lease = await self.api_instance.read_namespaced_lease(self.name, self.namespace)
                if lease.spec is None or lease.spec.holder_identity != self.identity:
                    return
                lease.spec.holder_identity = None
                await self.api_instance.replace_namespaced_lease(self.name, self.namespace, lease)
            except ApiException as error:
                if error.status != HTTPStatus.CONFLICT:
                    return  # it runs out by itself
                # A renewal that was cancelled here was still carried out there.
            except _UNREACHABLE:
                return
            else:
                return
