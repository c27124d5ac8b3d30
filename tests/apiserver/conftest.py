"""A real control plane, started once for this folder's tests; each test gets a namespace of its own."""

import os
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NoReturn, Protocol

import pytest
import pytest_asyncio
from testcluster import ControlPlane, MissingToolError, Settings

from openclaw_operator.api.v1alpha1 import GROUP, PLURAL
from support.markdown import REPOSITORY


class Kubectl(Protocol):
    """`kubectl` against the control plane: returns what it printed, raises CommandError if it failed."""

    async def __call__(self, *arguments: str, input: str | None = None) -> str: ...


def _not_here(reason: MissingToolError) -> NoReturn:
    """Skip, as this machine lacks something; in CI nothing may be lacking."""
    if os.environ.get("CI"):
        pytest.fail(str(reason))
    pytest.skip(str(reason))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def control_plane(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ControlPlane]:
    """The control plane of this test run, with an autoscaler that looks every two seconds."""
    plane = ControlPlane(tmp_path_factory.mktemp("control-plane"), Settings(autoscaler_period=2))
    try:
        await plane.start()
    except MissingToolError as missing:
        _not_here(missing)
    yield plane
    await plane.stop()
    # Logs stay for whoever looks into a failure; the database is large and says nothing.
    shutil.rmtree(plane.directory / "etcd")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def fake_nodes(control_plane: ControlPlane) -> int:
    """Nodes on which pods become Ready without running; the value is how many there are."""
    count = 4
    await control_plane.add_fake_nodes(count)
    return count


@pytest.fixture
def kubectl(control_plane: ControlPlane) -> Kubectl:
    """`kubectl` as cluster administrator."""
    return control_plane.kubectl


@asynccontextmanager
async def _fresh_namespace(plane: ControlPlane) -> AsyncIterator[str]:
    name = f"test-{secrets.token_hex(4)}"
    await plane.kubectl("create", "namespace", name)
    yield name
    await plane.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
async def namespace(control_plane: ControlPlane) -> AsyncIterator[str]:
    """A namespace for one test, deleted after it."""
    async with _fresh_namespace(control_plane) as name:
        yield name


@pytest.fixture
async def another_namespace(control_plane: ControlPlane) -> AsyncIterator[str]:
    """A second one for a test that needs it."""
    async with _fresh_namespace(control_plane) as name:
        yield name


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def definition(control_plane: ControlPlane) -> str:
    """The definition of InferenceService, in force; what kubectl said of it, warnings too."""
    said = await control_plane.kubectl("apply", "--server-side", "--filename", str(REPOSITORY / "crds"))
    await control_plane.kubectl("wait", "--for=condition=Established", f"crd/{PLURAL}.{GROUP}", "--timeout=20s")
    return said
