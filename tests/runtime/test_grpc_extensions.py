"""The extensions of the protocol over gRPC: repository, statistics, shared memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
import tritonclient.utils.shared_memory as memory
from tritonclient.utils import InferenceServerException

from grpcserving.calls import (
    LIMIT,
    ROW,
    expected,
    image,
    method,
    refused,
)
from grpcserving.models import OneModel, serve
from openclaw.execute.session import Model
from openclaw.serving.grpc import inference_pb2 as pb
from openclaw.serving.sharedmemory import Regions

pytest_plugins = ["grpcserving.fixtures"]


async def test_models_are_loaded_and_unloaded_where_that_is_allowed(digits: OneModel) -> None:
    async with serve(digits, loading=True) as running, triton_aio.InferenceServerClient(running.address) as client:
        await client.unload_model("digits")
        assert not await client.is_model_ready("digits")
        assert not await client.is_server_ready()
        index = (await client.get_model_repository_index(as_json=True))["models"]
        assert index == [{"name": "digits", "version": "3", "state": "UNAVAILABLE", "reason": "unloaded"}]
        with pytest.raises(InferenceServerException, match="is not loaded") as caught:
            await client.infer("digits", image())
        assert caught.value.status() == "StatusCode.UNAVAILABLE"
        await client.load_model("digits")
        assert await client.is_model_ready("digits")
        with pytest.raises(InferenceServerException, match="there is no model 'nothing'"):
            await client.load_model("nothing")
        with pytest.raises(InferenceServerException, match='parameter "config" is not supported'):
            await client.load_model("digits", config="{}")
        assert "model_repository" in (await client.get_server_metadata()).extensions


async def test_the_index_can_be_only_of_ready_models(digits: OneModel, models: Any) -> None:
    pair = OneModel(Model.from_file(models.pair(), threads=1))
    async with serve(digits, pair) as running, grpc.aio.insecure_channel(running.address) as channel:
        running.models.out.add("pair")
        index = method(channel, "RepositoryIndex", pb.RepositoryIndexResponse)
        assert [each.name for each in (await index(pb.RepositoryIndexRequest())).models] == ["digits", "pair"]
        assert [each.name for each in (await index(pb.RepositoryIndexRequest(ready=True))).models] == ["digits"]
        error = await refused(index(pb.RepositoryIndexRequest(repository_name="other")))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert 'repository_name is "other"' in error.details()


async def test_statistics_tell_what_was_computed(digits: OneModel, models: Any) -> None:
    pair = OneModel(Model.from_file(models.pair(), threads=1))
    async with (
        serve(digits, pair, statistics=True) as running,
        triton_aio.InferenceServerClient(running.address) as client,
    ):
        await client.infer("digits", image(np.zeros((5, 64), np.float32)))
        await client.infer("digits", image())
        (one,) = (await client.get_inference_statistics("digits")).model_stats
        assert (one.name, one.version, one.inference_count, one.execution_count) == ("digits", "3", 6, 2)
        assert one.inference_stats.compute_infer.count == 2
        assert one.inference_stats.compute_infer.ns > 0
        assert [(each.batch_size, each.compute_infer.count) for each in one.batch_stats] == [(1, 1), (5, 1)]
        every = await client.get_inference_statistics()
        assert [each.name for each in every.model_stats] == ["digits", "pair"]


@pytest.fixture
def shared() -> Iterator[Any]:
    """A shared memory object of tritonclient's with room for an image and its scores."""
    key = f"/openclaw-grpc-{time.monotonic_ns()}"
    handle = memory.create_shared_memory_region("both", key, 256 + 40)
    yield handle, key
    memory.destroy_shared_memory_region(handle)


async def test_tensors_go_through_shared_memory_where_that_is_allowed(
    digits: OneModel, models: Any, shared: Any
) -> None:
    handle, shared_key = shared
    memory.set_shared_memory_region(handle, [ROW])
    async with (
        serve(digits, regions=Regions(max_bytes=LIMIT)) as running,
        triton_aio.InferenceServerClient(running.address) as client,
    ):
        await client.register_system_shared_memory("both", shared_key, 296)
        status = await client.get_system_shared_memory_status(as_json=True)
        assert status["regions"]["both"]["byte_size"] == "296"
        tensor = triton.InferInput("image", [1, 64], "FP32")
        tensor.set_shared_memory("both", 256)
        wanted = triton.InferRequestedOutput("scores")
        wanted.set_shared_memory("both", 40, offset=256)
        result = await client.infer("digits", [tensor], outputs=[wanted])
        (output,) = result.get_response().outputs
        assert output.parameters["shared_memory_region"].string_param == "both"
        assert result.get_response().raw_output_contents == [b""]
        scores = memory.get_contents_as_numpy(handle, np.float32, [1, 10], 256)
        np.testing.assert_array_equal(scores, expected(models))
        wanted.set_shared_memory("both", 39, offset=256)
        with pytest.raises(InferenceServerException, match="has 40 bytes; shared_memory_byte_size"):
            await client.infer("digits", [tensor], outputs=[wanted])
        await client.unregister_system_shared_memory("both")
        with pytest.raises(InferenceServerException, match='no shared memory region "both"'):
            await client.infer("digits", [tensor])


async def test_shared_memory_is_refused_where_it_is_not_allowed(client: Any) -> None:
    tensor = triton.InferInput("image", [1, 64], "FP32")
    tensor.set_shared_memory("both", 256)
    with pytest.raises(InferenceServerException, match="shared memory is not allowed by this server"):
        await client.infer("digits", [tensor])
