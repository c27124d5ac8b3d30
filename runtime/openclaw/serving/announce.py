"""The line that says where the model answers, and a command to try it with."""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Iterable
from typing import Any

import orjson

from openclaw.graph.signature import Signature
from openclaw.serving.inference import InferRequest, Tensor
from openclaw.serving.protocol import encode_request
from openclaw.serving.served import Served

log = logging.getLogger(__name__)

# A command longer than a few lines of a terminal is not one to paste.
_MAX_VALUES = 256


def announce(models: Iterable[Served], address: tuple[Any, ...], *, seconds: float) -> None:
    """Logs that the models are ready, and shows a curl command for each where a person reads along."""
    host, port = str(address[0]), int(address[1])
    url = f"http://{reachable(host)}:{port}"
    for served in models:
        log.info("%s is ready on %s after %.2f s", served.name, url, seconds)
        if os.environ.get("OPENCLAW_LOG_FORMAT") != "json":
            print(f"try it:\n  {curl_command(served.name, url, served.signature)}", file=sys.stdout, flush=True)


def reachable(host: str) -> str:
    """A host that a client on this machine can use, as it stands in a URL."""
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{local}]" if ":" in local else local


def curl_command(name: str, url: str, signature: Signature) -> str:
    """A command that sends zeros; for large inputs one that shows what the model takes."""
    tensors = tuple(Tensor(spec.name, spec.datatype, spec.blank()) for spec in signature.inputs)
    if sum(math.prod(tensor.array.shape) for tensor in tensors) > _MAX_VALUES:
        return f"curl {url}/v2/models/{name}"
    body = encode_request(InferRequest(tensors)).body
    # Whole zeros are shorter to read, and mean the same to the protocol.
    text = orjson.dumps(orjson.loads(body)).decode().replace("0.0", "0").replace("'", "'\\''")
    return f"curl {url}/v2/models/{name}/infer -d '{text}'"
