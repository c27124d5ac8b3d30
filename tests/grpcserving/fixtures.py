"""A running server with the digits model, and clients of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import tritonclient.grpc.aio as triton_aio

from grpcserving.models import OneModel, Running, serve
from openclaw.execute.session import Model


@pytest.fixture
def digits(models: Any) -> OneModel:
    return OneModel(Model.from_file(models.digits(), threads=1))


@pytest.fixture
async def running(digits: OneModel) -> AsyncIterator[Running]:
    async with serve(digits) as running:
        yield running


@pytest.fixture
async def channel(running: Running) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(running.address) as channel:
        yield channel


@pytest.fixture
async def client(running: Running) -> AsyncIterator[triton_aio.InferenceServerClient]:
    async with triton_aio.InferenceServerClient(running.address) as client:
        yield client
