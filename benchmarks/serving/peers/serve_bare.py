"""The bare protocol: httptools on an asyncio.Protocol under uvloop, orjson, and onnxruntime called inline.

It checks nothing, counts nothing and knows one path: what a Python server would reach that did nothing but answer
right requests. Larger models run in a pool of threads, one for each core.
"""

from __future__ import annotations

import asyncio
import gc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httptools
import numpy as np
import orjson
import uvloop
from benchmarks.serving.peers import engine

_DTYPES = {"FP32": np.float32, "INT64": np.int64}
_JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
_BINARY = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
    b"Inference-Header-Content-Length: %d\r\nContent-Length: %d\r\n\r\n"
)


class Bare(asyncio.Protocol):
    """One connection; one request at a time."""

    options: engine.Options
    session: Any
    outputs: list[str]
    pool: ThreadPoolExecutor | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there."""
        self._transport: Any = transport
        self._parser = httptools.HttpRequestParser(self)
        self._chunks: list[bytes] = []
        self._head = 0

    def data_received(self, data: bytes) -> None:
        """Some bytes of it came."""
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header of a request."""
        if name == b"Inference-Header-Content-Length":
            self._head = int(value)

    def on_body(self, body: bytes) -> None:
        """A part of its body."""
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        """The request is whole: answers it, or lets a thread do it."""
        body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        head, self._chunks, self._head = self._head, [], 0
        if self.pool is None:
            self._transport.write(self._answer(body, head))
            return
        loop = asyncio.get_running_loop()
        coming = loop.run_in_executor(self.pool, self._answer, body, head)
        coming.add_done_callback(lambda done: self._transport.write(done.result()))

    def _answer(self, body: bytes, head: int) -> bytes:
        document = orjson.loads(memoryview(body)[:head] if head else body)
        arrays, at = {}, head
        for tensor in document["inputs"]:
            dtype = _DTYPES[tensor["datatype"]]
            if head:
                size = tensor["parameters"]["binary_data_size"]
                array = np.frombuffer(memoryview(body)[at : at + size], dtype)
                at += size
            else:
                array = np.array(tensor["data"], dtype)
            arrays[tensor["name"]] = array.reshape(tensor["shape"])
        results = self.session.run(self.outputs, arrays)
        described = [
            {"name": name, "shape": array.shape, "datatype": "FP32"}
            for name, array in zip(self.outputs, results, strict=True)
        ]
        return self._binary(described, results) if head else self._json(described, results)

    def _json(self, described: list[dict[str, Any]], results: list[Any]) -> bytes:
        for output, array in zip(described, results, strict=True):
            output["data"] = array.ravel()
        document = {"model_name": self.options.name, "outputs": described}
        text = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
        return _JSON % len(text) + text

    def _binary(self, described: list[dict[str, Any]], results: list[Any]) -> bytes:
        for output, array in zip(described, results, strict=True):
            output["parameters"] = {"binary_data_size": array.nbytes}
        text = orjson.dumps({"model_name": self.options.name, "outputs": described})
        data = b"".join(array.tobytes() for array in results)
        return _BINARY % (len(text), len(text) + len(data)) + text + data


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Bare, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


def main() -> None:
    """Serves until killed."""
    Bare.options = engine.parsed()
    Bare.session = engine.session(Bare.options)
    Bare.outputs = [each.name for each in Bare.session.get_outputs()]
    Bare.pool = engine.pool()
    gc.freeze()
    uvloop.run(_serve(Bare.options.port))


if __name__ == "__main__":
    main()
