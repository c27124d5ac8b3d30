"""KServe's Python server 0.21 with a model of a few lines.

Settings: one uvicorn worker on uvloop, no gRPC, inference on the loop where it is shorter than a hop, else in one of as
many threads as cores (its own setting for them is lost when it starts its event loop).
Its three log lines a request (two timings, one access) are off, which is more than its options can say. It listens on
every address by itself, and is held to loopback here. It has binary tensors. Its batcher is another process's (the Go
agent, V1 protocol only), so there is none here.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from benchmarks.serving.peers import engine
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer  # type: ignore[import-not-found]
from kserve.protocol.rest import server as rest_server  # type: ignore[import-not-found]


class Onnx(Model):  # type: ignore[misc]  # kserve is not in the environment that is checked
    """The model of this process's command line."""

    def __init__(self, options: engine.Options) -> None:
        super().__init__(options.name)
        self._pool = engine.pool()
        self._session = engine.session(options)
        self._outputs = [each.name for each in self._session.get_outputs()]
        self.ready = True

    async def predict(self, payload: InferRequest, headers: Any = None, response_headers: Any = None) -> InferResponse:
        """One inference; outputs are binary where the request asked for that."""
        arrays = {each.name: each.as_numpy() for each in payload.inputs}
        if self._pool is None:
            results = self._session.run(self._outputs, arrays)
        else:
            loop = asyncio.get_running_loop()
            results = await loop.run_in_executor(self._pool, self._session.run, self._outputs, arrays)
        outputs = []
        for name, array in zip(self._outputs, results, strict=True):
            output = InferOutput(name, list(array.shape), "FP32")
            output.set_data_from_numpy(array, binary_data=payload.use_binary_outputs)
            outputs.append(output)
        return InferResponse(payload.id or "1", self.name, outputs, use_binary_outputs=payload.use_binary_outputs)


def main() -> None:
    """Serves until told to stop."""
    options = engine.parsed()
    config = rest_server.uvicorn.Config
    rest_server.uvicorn.Config = lambda app, **told: config(app, **{**told, "host": "127.0.0.1", "access_log": False})
    server = ModelServer(
        http_port=options.port,
        enable_grpc=False,
        workers=1,
        enable_latency_logging=False,
        access_log_format=None,
        event_loop="uvloop",
    )
    logging.getLogger("kserve.trace").setLevel(logging.WARNING)
    server.start([Onnx(options)])


if __name__ == "__main__":
    main()
