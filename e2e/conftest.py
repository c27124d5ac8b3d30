"""A whole node, started once for the end-to-end tests."""

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NoReturn

import pytest
import pytest_asyncio
from testcluster import MissingToolError
from testcluster.node import Node


def _not_here(reason: MissingToolError) -> NoReturn:
    """Skip, as this machine lacks something; in CI nothing may be lacking."""
    if os.environ.get("CI"):
        pytest.fail(str(reason))
    pytest.skip(str(reason))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Node]:
    """The node of this test run; `node.plane.kubectl` speaks to it from here."""
    whole = Node(tmp_path_factory.mktemp("node"), say=print)
    try:
        await whole.start()
    except MissingToolError as missing:
        _not_here(missing)
    yield whole
    await whole.stop()
    # Logs stay for whoever looks into a failure; the database is large and says nothing.
    shutil.rmtree(whole.directory / "etcd")


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the working tree."""
    return Path(__file__).resolve().parents[1]
