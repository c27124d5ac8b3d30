"""Who holds the Lease, asked of a real API server."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from kubernetes.aio import client, config
from testcluster import ControlPlane

from openclaw_operator.cluster.lease import while_leading

LEASE_SECONDS = 30
"""Who waits for it to run out takes this long: longer than the test is given."""


@pytest.fixture
async def api(control_plane: ControlPlane) -> AsyncIterator[client.ApiClient]:
    settings = client.Configuration()
    await config.load_kube_config(str(control_plane.kubeconfig), client_configuration=settings)
    async with client.ApiClient(settings) as connected:
        yield connected


class Replica:
    """One that waits for the Lease, and works until it is told to stop."""

    def __init__(self, api: client.ApiClient, *, namespace: str, identity: str) -> None:
        self.leads = asyncio.Event()
        self.stop = asyncio.Event()
        leading = while_leading(
            self._work,
            api=api,
            name="lease",
            namespace=namespace,
            identity=identity,
            seconds=LEASE_SECONDS,
            stop=self.stop,
        )
        self.task = asyncio.create_task(leading)

    async def _work(self) -> None:
        self.leads.set()
        await self.stop.wait()


async def test_a_replica_that_stops_hands_over_at_once(api: client.ApiClient, namespace: str) -> None:
    async with asyncio.timeout(LEASE_SECONDS - 5):
        holder = Replica(api, namespace=namespace, identity="0")
        await holder.leads.wait()
        for number in range(2):  # the first holder has created the Lease, the second has taken it over
            other = Replica(api, namespace=namespace, identity=str(number + 1))
            holder.stop.set()
            await holder.task
            await other.leads.wait()
            holder = other
        holder.stop.set()
        await holder.task
