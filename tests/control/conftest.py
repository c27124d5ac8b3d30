"""One daemon of local mode for the tests of a module, and a client's session for each."""

from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest

from support.local_mode import LocalMode, service, write, write_model


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalMode]:
    """A daemon that has served a model already, for all tests that do not end it: each has services of its own."""
    instance = LocalMode(tmp_path_factory.mktemp("local"))
    write_model(instance.folder / "two.onnx", factor=2)
    write_model(instance.folder / "three.onnx", factor=3)
    started = instance.up(write(instance.folder / "first.yaml", service("first", "file://./two.onnx")))
    try:
        assert started.returncode == 0, started.stdout + started.stderr
        yield instance
    finally:
        instance.run("down")


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened
