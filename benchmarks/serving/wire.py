"""Inference requests of the Open Inference Protocol as bytes, and the answers read back.

Written here again rather than taken from the runtime: a benchmark that checks answers with the code that made them
checks nothing. https://github.com/open-inference/open-inference-protocol
"""

from __future__ import annotations

from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any

import numpy as np
import orjson
from benchmarks.serving.models import Arrays

HEADER_LENGTH = "Inference-Header-Content-Length"
_NAMES = {"float32": "FP32", "int64": "INT64"}
_DTYPES = {name: np.dtype(dtype) for dtype, name in _NAMES.items()}


@dataclass(frozen=True, slots=True)
class Post:
    """A request: its path, its headers beside Host and Content-Length, and its body."""

    path: str
    headers: dict[str, str]
    body: bytes

    def encoded(self) -> bytes:
        """All of it as HTTP/1.1 has it."""
        headers = {"Host": "localhost", **self.headers, "Content-Length": str(len(self.body))}
        lines = [f"POST {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        return "\r\n".join(lines).encode() + self.body


def post(model: str, arrays: Arrays, *, binary: bool) -> Post:
    """Asks `model` for all of its outputs, in the encoding of the inputs."""
    path = f"/v2/models/{model}/infer"
    tensors: list[dict[str, Any]] = [
        {"name": name, "shape": array.shape, "datatype": _NAMES[array.dtype.name]} for name, array in arrays.items()
    ]
    if not binary:
        for tensor, array in zip(tensors, arrays.values(), strict=True):
            tensor["data"] = array.ravel()
        body = orjson.dumps({"inputs": tensors}, option=orjson.OPT_SERIALIZE_NUMPY)
        return Post(path, {"Content-Type": "application/json"}, body)
    for tensor, array in zip(tensors, arrays.values(), strict=True):
        tensor["parameters"] = {"binary_data_size": array.nbytes}
    head = orjson.dumps({"inputs": tensors, "parameters": {"binary_data_output": True}})
    headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(head))}
    return Post(path, headers, head + b"".join(array.tobytes() for array in arrays.values()))


def outputs(body: bytes, head: int | None) -> Arrays:
    """The arrays of an answer; `head` is what its Inference-Header-Content-Length says, None where it has none."""
    document = orjson.loads(body if head is None else body[:head])
    at, arrays = head or 0, {}
    for tensor in document["outputs"]:
        dtype = _DTYPES[tensor["datatype"]]
        size = (tensor.get("parameters") or {}).get("binary_data_size")
        if size is None:
            array = np.array(tensor["data"], dtype)
        else:
            array = np.frombuffer(body[at : at + size], dtype)
            at += size
        arrays[tensor["name"]] = array.reshape(tensor["shape"])
    return arrays


class StatusError(Exception):
    """The server answered, but not with 200; the text has the status and the beginning of the body."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"{status} {body[:300].decode(errors='replace')}")
        self.status = status


def ask(port: int, request: Post, *, timeout: float = 60) -> Arrays:
    """Sends one request on a connection of its own and gives the outputs.

    Raises:
        StatusError: another status than 200.
        OSError, HTTPException: no server, or none that speaks HTTP, yet.
    """
    connection = HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("POST", request.path, request.body, request.headers)
        response = connection.getresponse()
        body, head = response.read(), response.getheader(HEADER_LENGTH)
    finally:
        connection.close()
    if response.status != 200:
        raise StatusError(response.status, body)
    return outputs(body, None if head is None else int(head))


def get(port: int, path: str, *, timeout: float = 10) -> bytes:
    """The body of a GET, whatever its status.

    Raises:
        OSError, HTTPException: there is no server.
    """
    connection = HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()
