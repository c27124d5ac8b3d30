"""LitServe 0.2 with an API of a few lines, whose requests and answers are those of the Open Inference Protocol.

Settings: one worker process, which is how it always runs a model, and one for HTTP; its faster queue between them
(ZeroMQ); batches, where asked for, after at most 2 ms. Sentences of one batch are padded to the longest, as its
documentation has it for text. Tensors are JSON: it has no binary ones.
"""

from typing import Any

import litserve  # type: ignore[import-not-found]
import numpy as np
from benchmarks.serving.peers import engine
from fastapi import Request  # type: ignore[import-not-found]

_DTYPES = {"FP32": np.float32, "INT64": np.int64}


class Onnx(litserve.LitAPI):  # type: ignore[misc]  # litserve is not in the environment that is checked
    """The model of this process's command line."""

    def setup(self, device: str) -> None:
        """Opens the session; in the worker."""
        self._session = engine.session(engine.parsed())
        self._outputs = [each.name for each in self._session.get_outputs()]

    # LitServe hands this annotation, not a string of it, to FastAPI; what it then calls this with is the parsed body.
    def decode_request(self, request: Request) -> dict[str, Any]:
        """The arrays of one request."""
        return {
            each["name"]: np.array(each["data"], _DTYPES[each["datatype"]]).reshape(each["shape"])
            for each in request["inputs"]
        }

    def batch(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Requests of one row each, on top of each other."""
        return {name: _stacked([each[name] for each in inputs]) for name in inputs[0]}

    def predict(self, arrays: dict[str, Any]) -> list[Any]:
        """One inference."""
        results: list[Any] = self._session.run(self._outputs, arrays)
        return results

    def unbatch(self, output: list[Any]) -> list[list[Any]]:
        """The rows of a batch, one for each request."""
        return [[array[row : row + 1] for array in output] for row in range(len(output[0]))]

    def encode_response(self, output: list[Any]) -> dict[str, Any]:
        """The answer to one request."""
        outputs = [
            {"name": name, "datatype": "FP32", "shape": array.shape, "data": array.ravel().tolist()}
            for name, array in zip(self._outputs, output, strict=True)
        ]
        return {"outputs": outputs}


def _stacked(arrays: list[Any]) -> Any:
    if len({array.shape for array in arrays}) == 1:
        return np.concatenate(arrays)
    longest = max(array.shape[1] for array in arrays)
    return np.concatenate([np.pad(array, ((0, 0), (0, longest - array.shape[1]))) for array in arrays])


def main() -> None:
    """Serves until told to stop."""
    options = engine.parsed()
    batching = {"max_batch_size": options.batch, "batch_timeout": 0.002} if options.batch > 1 else {}
    api = Onnx(api_path=f"/v2/models/{options.name}/infer", **batching)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=True, timeout=False)
    server.run(host="127.0.0.1", port=options.port, generate_client_file=False, log_level="error", access_log=False)


if __name__ == "__main__":
    main()
