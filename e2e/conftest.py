"""A whole node with the chart installed on it, once for all end-to-end tests."""

import os
import secrets
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NoReturn

import pytest
import pytest_asyncio
from testcluster import MissingToolError
from testcluster.node import Node
from testcluster.process import run
from testcluster.toolchain import require

from world import images, release
from world.namespace import Namespace
from world.release import Release
from world.store import Store

REPOSITORY = Path(__file__).resolve().parents[1]
FIRST_BUILD_SECONDS = 1500
"""For what the first test waits on an empty cache: a Debian, and the packages of two images."""


@pytest.hookimpl(trylast=True)  # when those that are not selected are gone
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give time to whichever test comes first and builds the images: it may be any that is selected."""
    for item in items:
        if {"operator", "node"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.timeout(FIRST_BUILD_SECONDS))
            return


def _not_here(reason: MissingToolError) -> NoReturn:
    """Skip, as this machine lacks something; in CI nothing may be lacking."""
    if os.environ.get("CI"):
        pytest.fail(str(reason))
    pytest.skip(str(reason))


async def _tool(name: str) -> Path:
    """Path of a command; without it the tests that need it are skipped."""
    try:
        return (await require(name))[name]
    except MissingToolError as missing:
        _not_here(missing)


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


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def operator(node: Node) -> AsyncIterator[Release]:
    """The chart, installed with images of this working tree, in a namespace that admits only restricted pods."""
    try:
        await images.build_and_load(node, REPOSITORY, images.RUNTIME, images.OPERATOR)
    except MissingToolError as missing:
        _not_here(missing)
    await node.plane.kubectl("create", "namespace", release.NAMESPACE)
    await node.plane.kubectl("label", "namespace", release.NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
    installed = Release(node, chart=REPOSITORY / "charts" / "openclaw", helm=await _tool("helm"))
    await installed.install()
    yield installed
    refused = installed.refused()
    assert not refused, f"the chart's rights do not cover what the operator asked for: {refused[:5]}"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def optimizer(node: Node) -> images.Image:
    """The image of the step before a server: large, and so only there for those who need it."""
    try:
        await images.build_and_load(node, REPOSITORY, images.OPTIMIZER)
    except MissingToolError as missing:
        _not_here(missing)
    return images.OPTIMIZER


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def digits() -> Path:
    """Folder of the digits example, trained."""
    folder = REPOSITORY / "examples" / "digits"
    await run([sys.executable, "-c", "import demo; demo.train()"], cwd=folder, timeout=120)
    return folder


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def store(node: Node, digits: Path) -> AsyncIterator[Store]:
    """The object store, which has the trained model as `digits.onnx`."""
    running = Store(node, versitygw=await _tool("versitygw"))
    await running.start()
    running.put("digits.onnx", digits / "build" / "digits.onnx")
    yield running
    await running.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def namespace(node: Node, operator: Release, store: Store) -> AsyncIterator[Namespace]:
    """A namespace for the services of one file, with the Secret that leads to the store."""
    own = Namespace(node, f"test-{secrets.token_hex(4)}")
    await own.create()
    await own.apply(store.secret())
    yield own
    await own.delete()
