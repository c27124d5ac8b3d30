"""MLServer 1.7 with an onnxruntime model of a few lines (its own is not published).

Settings, each the better one here: no parallel workers (on two cores the queues between processes cost more than they
bring), metrics, debug, access log and gzip off, uvloop as its own command line installs it, inference on the loop where
it is shorter than a hop, else in one of as many threads as cores. Its adaptive batching, where asked for, waits at
most 5 ms, or 1 ms for the small model; it joins requests of one shape only. It has no binary tensors over HTTP.
"""

from __future__ import annotations

import asyncio
from typing import Any

import uvloop
from benchmarks.serving.peers import engine
from mlserver import MLModel, MLServer, ModelSettings, Settings  # type: ignore[import-not-found]
from mlserver.codecs import NumpyCodec  # type: ignore[import-not-found]
from mlserver.types import InferenceRequest, InferenceResponse  # type: ignore[import-not-found]


class Onnx(MLModel):  # type: ignore[misc]  # mlserver is not in the environment that is checked
    """The model of this process's command line."""

    async def load(self) -> bool:
        """Opens the session."""
        self._pool = engine.pool()
        self._session = engine.session(engine.parsed())
        self._outputs = [each.name for each in self._session.get_outputs()]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """One inference, of one request or of a batch that mlserver made."""
        arrays = {each.name: NumpyCodec.decode_input(each) for each in payload.inputs}
        if self._pool is None:
            results = self._session.run(self._outputs, arrays)
        else:
            loop = asyncio.get_running_loop()
            results = await loop.run_in_executor(self._pool, self._session.run, self._outputs, arrays)
        outputs = [NumpyCodec.encode_output(name, each) for name, each in zip(self._outputs, results, strict=True)]
        return InferenceResponse(model_name=self.name, outputs=outputs)


def main() -> None:
    """Serves until told to stop."""
    options = engine.parsed()
    settings = Settings(
        debug=False,
        parallel_workers=0,
        host="127.0.0.1",
        http_port=options.port,
        grpc_port=options.spare,
        metrics_endpoint=None,
        gzip_enabled=False,
    )
    wait = 0.001 if options.small else 0.005
    batching: dict[str, Any] = {"max_batch_size": options.batch, "max_batch_time": wait} if options.batch > 1 else {}
    model = ModelSettings(name=options.name, implementation=Onnx, **batching)
    uvloop.run(_serve(settings, model))


async def _serve(settings: Settings, model: ModelSettings) -> None:
    await MLServer(settings).start([model])


if __name__ == "__main__":
    main()
