"""The whole server against every client of Triton: HTTP and gRPC, blocking and asyncio, shared memory."""

from __future__ import annotations

import asyncio
import contextlib
import queue
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from tritonclient.utils import InferenceServerException, shared_memory

IMAGES = np.random.default_rng(3).random((4, 64), dtype=np.float32)


@pytest.fixture
def server(start_server: Callable[..., Any], models: Any) -> Any:
    return start_server(models.digits(), "--grpc-port", 0, "--shared-memory", "--model-control").wait_ready()


@pytest.fixture(scope="module")
def expected(models: Any) -> Any:
    return onnxruntime.InferenceSession(models.digits()).run(None, {"image": IMAGES})[0]


def address(server: Any, library: ModuleType) -> str:
    if "grpc" in library.__name__:
        return f"127.0.0.1:{server.wait_for(r'gRPC on port ([0-9]+)').group(1)}"
    return f"127.0.0.1:{server.port}"


def image(library: ModuleType) -> Any:
    tensor = library.InferInput("image", list(IMAGES.shape), "FP32")
    tensor.set_data_from_numpy(IMAGES)
    return tensor


BLOCKING = [tritonclient.http, tritonclient.grpc]
ASYNCIO = [tritonclient.http.aio, tritonclient.grpc.aio]


@pytest.mark.parametrize("library", BLOCKING, ids=["http", "grpc"])
def test_a_blocking_client_infers(server: Any, expected: Any, library: ModuleType) -> None:
    with contextlib.closing(library.InferenceServerClient(address(server, library))) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("digits")
        result = client.infer("digits", [image(library)], outputs=[library.InferRequestedOutput("scores")])
        np.testing.assert_array_equal(result.as_numpy("scores"), expected)
        with pytest.raises(InferenceServerException, match="there is no model 'letters'"):
            client.infer("letters", [image(library)])


@pytest.mark.parametrize("library", ASYNCIO, ids=["http", "grpc"])
async def test_an_asyncio_client_infers(server: Any, expected: Any, library: ModuleType) -> None:
    async with library.InferenceServerClient(address(server, library)) as client:
        results = await asyncio.gather(*(client.infer("digits", [image(library)]) for _ in range(32)))
        for result in results:
            np.testing.assert_array_equal(result.as_numpy("scores"), expected)


def test_a_stream_is_answered(server: Any, expected: Any) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    library = tritonclient.grpc
    with contextlib.closing(library.InferenceServerClient(address(server, library))) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for number in range(5):
            client.async_stream_infer("digits", [image(library)], request_id=str(number))
        for number in range(5):
            result, error = answers.get(timeout=10)
            assert error is None
            assert result.get_response().id == str(number)
            np.testing.assert_array_equal(result.as_numpy("scores"), expected)
        client.stop_stream()


@pytest.fixture
def region() -> Iterator[Callable[[str, int], Any]]:
    """Makes regions of shared memory, and takes them away."""
    with contextlib.ExitStack() as made:

        def make(name: str, size: int) -> Any:
            handle = shared_memory.create_shared_memory_region(name, f"/openclaw-{name}", size)
            made.callback(partial(shared_memory.destroy_shared_memory_region, handle))
            return handle

        yield make


@pytest.mark.parametrize("library", BLOCKING, ids=["http", "grpc"])
def test_tensors_lie_in_shared_memory(
    server: Any, expected: Any, region: Callable[[str, int], Any], *, library: ModuleType
) -> None:
    given, taken = region("input", IMAGES.nbytes), region("output", expected.nbytes)
    shared_memory.set_shared_memory_region(given, [IMAGES])
    with contextlib.closing(library.InferenceServerClient(address(server, library))) as client:
        client.register_system_shared_memory("input", "/openclaw-input", IMAGES.nbytes)
        client.register_system_shared_memory("output", "/openclaw-output", expected.nbytes)
        tensor = library.InferInput("image", list(IMAGES.shape), "FP32")
        tensor.set_shared_memory("input", IMAGES.nbytes)
        wanted = library.InferRequestedOutput("scores")
        wanted.set_shared_memory("output", expected.nbytes)
        client.infer("digits", [tensor], outputs=[wanted])
        np.testing.assert_array_equal(
            shared_memory.get_contents_as_numpy(taken, np.float32, list(expected.shape)), expected
        )
        client.unregister_system_shared_memory("input")
        with pytest.raises(InferenceServerException, match="input"):
            client.infer("digits", [tensor])
        client.unregister_system_shared_memory()


@pytest.mark.parametrize("library", ASYNCIO, ids=["http", "grpc"])
async def test_an_asyncio_clients_tensors_lie_in_shared_memory(
    server: Any, expected: Any, region: Callable[[str, int], Any], *, library: ModuleType
) -> None:
    given, taken = region("aio-input", IMAGES.nbytes), region("aio-output", expected.nbytes)
    shared_memory.set_shared_memory_region(given, [IMAGES])
    async with library.InferenceServerClient(address(server, library)) as client:
        await client.register_system_shared_memory("input", "/openclaw-aio-input", IMAGES.nbytes)
        await client.register_system_shared_memory("output", "/openclaw-aio-output", expected.nbytes)
        tensor = library.InferInput("image", list(IMAGES.shape), "FP32")
        tensor.set_shared_memory("input", IMAGES.nbytes)
        wanted = library.InferRequestedOutput("scores")
        wanted.set_shared_memory("output", expected.nbytes)
        await client.infer("digits", [tensor], outputs=[wanted])
        np.testing.assert_array_equal(
            shared_memory.get_contents_as_numpy(taken, np.float32, list(expected.shape)), expected
        )
        await client.unregister_system_shared_memory("input")
        with pytest.raises(InferenceServerException, match="input"):
            await client.infer("digits", [tensor])
        await client.unregister_system_shared_memory()


@pytest.mark.parametrize("library", BLOCKING, ids=["http", "grpc"])
def test_a_model_is_unloaded_and_loaded(server: Any, library: ModuleType) -> None:
    with contextlib.closing(library.InferenceServerClient(address(server, library))) as client:
        client.unload_model("digits")
        assert not client.is_model_ready("digits")
        client.load_model("digits")
        assert client.is_model_ready("digits")
        with pytest.raises(InferenceServerException, match='parameter "config" is not supported') as caught:
            client.load_model("digits", config="{}")
        assert caught.value.status() in ("501", "StatusCode.UNIMPLEMENTED")


CONFIG = {
    "name": "digits",
    "platform": "onnxruntime_onnx",
    "backend": "onnxruntime",
    "input": [{"name": "image", "data_type": "TYPE_FP32", "dims": [-1, 64]}],
    "output": [{"name": "scores", "data_type": "TYPE_FP32", "dims": [-1, 10]}],
}


def test_the_configuration_is_the_same_over_http_and_grpc(server: Any) -> None:
    with contextlib.closing(tritonclient.http.InferenceServerClient(address(server, tritonclient.http))) as client:
        for version in ("", "1"):
            config = client.get_model_config("digits", version)
            assert {key: config[key] for key in CONFIG} == CONFIG
        assert config["max_batch_size"] == 0
        with pytest.raises(InferenceServerException, match="has no version '2'"):
            client.get_model_config("digits", "2")
    with contextlib.closing(tritonclient.grpc.InferenceServerClient(address(server, tritonclient.grpc))) as client:
        over_grpc = client.get_model_config("digits", as_json=True)["config"]
    for tensor in (*over_grpc["input"], *over_grpc["output"]):
        tensor["dims"] = [int(size) for size in tensor["dims"]]  # protocol buffers have them as text in JSON
    assert {key: over_grpc[key] for key in CONFIG} == CONFIG
    assert "max_batch_size" not in over_grpc  # 0


ALWAYS = {"binary_tensor_data", "model_configuration", "parameters", "statistics"}


@pytest.mark.parametrize("library", BLOCKING, ids=["http", "grpc"])
@pytest.mark.parametrize(
    ("options", "more"),
    [((), set()), (("--shared-memory", "--model-control"), {"model_repository", "system_shared_memory"})],
    ids=["by default", "with all"],
)
def test_the_extensions_that_are_named_are_those_that_are_on(
    start_server: Callable[..., Any], models: Any, library: ModuleType, *, options: tuple[str, ...], more: set[str]
) -> None:
    server = start_server(models.digits(), "--grpc-port", 0, *options).wait_ready()
    with contextlib.closing(library.InferenceServerClient(address(server, library))) as client:
        told = client.get_server_metadata()
        assert set(told["extensions"] if isinstance(told, dict) else told.extensions) == ALWAYS | more
        if not more:
            with pytest.raises(InferenceServerException, match=r"shared memory (may not be used here|is not allowed)"):
                client.register_system_shared_memory("region", "/openclaw-region", 64)


@pytest.mark.parametrize("library", BLOCKING, ids=["http", "grpc"])
def test_statistics_are_shown(server: Any, library: ModuleType) -> None:
    with contextlib.closing(library.InferenceServerClient(address(server, library))) as client:
        client.infer("digits", [image(library)])
        found = client.get_inference_statistics("digits")
    (stats,) = found["model_stats"] if isinstance(found, dict) else found.model_stats
    count = stats["inference_count"] if isinstance(stats, dict) else stats.inference_count
    assert count >= len(IMAGES)
