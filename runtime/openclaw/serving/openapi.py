"""The OpenAPI 3.1 document of everything that is served over REST.

https://spec.openapis.org/oas/v3.1.0
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from openclaw.graph.signature import Signature
from openclaw.serving.protocol import BINARY, HEADER_LENGTH, JSON
from openclaw.serving.schemas import Schema, components, reference

OPENAPI = "3.1.0"

_EXPOSITIONS = ("text/plain", "application/openmetrics-text")
_NAME: Schema = {"type": "string", "minLength": 1}
_LARGEST_EXAMPLE = 256
"""Values."""

_REASONS = {
    400: "The request is wrong; the sentence says what is allowed.",
    404: "There is no such model, version or path.",
    408: "The request did not arrive in time.",
    411: "The body's length is not told.",
    413: "The body is larger than allowed, also once unpacked.",
    415: "The body's content coding is not supported.",
    429: "Too much is waiting, or the answer would come too late; try again after Retry-After seconds.",
    500: "The model failed, for a reason that is not in the request.",
    501: "This server does not allow it.",
    503: "Loading or stopping, or the memory is in use; try again after Retry-After seconds, where it is told.",
    504: "The answer would have come too late.",
    507: "There is not enough memory to load it beside the models that are served.",
}
_INFERENCE_ERRORS = (400, 404, 408, 411, 413, 415, 429, 500, 501, 503, 504)
_BODY_ERRORS = (400, 408, 411, 413, 415)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a server serves.

    Attributes:
        version: of the software.
        models: the signature of each model by its name, for the names that paths take and for examples.
        v1: whether KServe's V1 protocol is spoken.
        repository: whether models may be loaded and unloaded.
        shared_memory: whether tensors may lie in shared memory.
        max_bytes: the largest request body.
    """

    version: str
    models: dict[str, Signature]
    v1: bool = True
    repository: bool = False
    shared_memory: bool = False
    max_bytes: int | None = None


def document(options: Options) -> dict[str, Any]:
    """The document, ready to be written as JSON."""
    paths = {**_health(), **_metadata(options), **_inference(options), **_repository(options)}
    if options.v1:
        paths |= _v1(options)
    if options.shared_memory:
        paths |= _shared_memory(options)
    paths["/metrics"] = {"get": _metrics()}
    paths["/openapi.json"] = {"get": _get("openapi", "This document.", {"type": "object"})}
    return {
        "openapi": OPENAPI,
        "info": {
            "title": "OpenClaw",
            "version": options.version,
            "summary": "Inference over REST: the Open Inference Protocol (v2), KServe's V1, and their extensions.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": components(shared_memory=options.shared_memory)},
    }


def _health() -> dict[str, Any]:
    ready, live = reference("ServerReady"), reference("ServerLive")
    return {
        "/v2/health/live": {"get": _probe("live", "Whether the server works at all.", live)},
        "/v2/health/ready": {"get": _probe("ready", "Whether every model should be sent inferences.", ready)},
    }


def _metadata(options: Options) -> dict[str, Any]:
    statistics = reference("Statistics")
    paths: dict[str, Any] = {
        "/v2": {"get": _get("server", "Name, version and extensions of the server.", reference("ServerMetadata"))},
        "/v2/models": {"get": _get("models", "The names of all models.", reference("Models"))},
        "/v2/models/stats": {"get": _get("allStatistics", "Statistics of all models.", statistics)},
    }
    for path, suffix, parameters in _models(options):
        model = _get(f"model{suffix}", "Inputs and outputs of a model.", reference("ModelMetadata"))
        config = _get(f"modelConfig{suffix}", "The configuration of a model.", reference("ModelConfig"))
        ready = _probe(f"modelReady{suffix}", "Whether a model should be sent inferences.", reference("ModelReady"))
        told = _get(f"statistics{suffix}", "Statistics of a model.", statistics)
        paths[path] = {"parameters": parameters, "get": _failing(model, 404, 503)}
        paths[f"{path}/config"] = {"parameters": parameters, "get": _failing(config, 404, 503)}
        paths[f"{path}/ready"] = {"parameters": parameters, "get": _failing(ready, 404)}
        paths[f"{path}/stats"] = {"parameters": parameters, "get": _failing(told, 404, 503)}
    return paths


def _inference(options: Options) -> dict[str, Any]:
    length = {
        "name": HEADER_LENGTH,
        "in": "header",
        "required": False,
        "schema": {"type": "integer", "minimum": 1},
        "description": "Bytes of JSON at the body's beginning, where binary tensors follow it.",
    }
    request = _body(reference("InferRequest"), options, examples=_examples(options, _infer_example))
    request["content"][BINARY] = {"schema": {"type": "string", "format": "binary"}}
    answer = _answer("The outputs.", reference("InferResponse"))
    answer["content"][BINARY] = {"schema": {"type": "string", "format": "binary"}}
    answer["headers"] = {HEADER_LENGTH: {"schema": {"type": "integer"}, "description": "Set where tensors are binary."}}
    return {
        f"{path}/infer": {
            "parameters": parameters,
            "post": {
                "operationId": f"infer{suffix}",
                "summary": "An inference; binary tensors follow the JSON.",
                "tags": ["inference"],
                "parameters": [length],
                "requestBody": request,
                "responses": {"200": answer, **_errors(*_INFERENCE_ERRORS)},
            },
        }
        for path, suffix, parameters in _models(options)
    }


def _repository(options: Options) -> dict[str, Any]:
    index = _post("repositoryIndex", "All models and their state.", reference("Index"))
    index["requestBody"] = _body(reference("IndexRequest"), options, required=False)
    paths: dict[str, Any] = {"/v2/repository/index": {"post": _failing(index, *_BODY_ERRORS)}}
    if options.repository:
        name = [_in_path("model", _NAME)]
        for verb, summary in (("load", "Loads a model, or its newest version."), ("unload", "Ends serving a model.")):
            control = _post(f"{verb}Model", summary, reference("Empty"))
            control["requestBody"] = _body(reference("ControlRequest"), options, required=False)
            errors = (*_BODY_ERRORS, 404, 500, 501, 503, *((507,) if verb == "load" else ()))
            paths[f"/v2/repository/models/{{model}}/{verb}"] = {"parameters": name, "post": _failing(control, *errors)}
    return paths


def _v1(options: Options) -> dict[str, Any]:
    name = [_in_path("model", _model_name(options))]
    predict = _post("predict", "An inference, as rows or columns.", reference("PredictResponse"))
    predict["requestBody"] = _body(reference("PredictRequest"), options, examples=_examples(options, _predict_example))
    status = _probe("v1Model", "Whether a model should be sent inferences.", reference("ModelReady"))
    return {
        "/v1/models": {"get": _get("v1Models", "The names of all models.", reference("Models"))},
        "/v1/models/{model}": {"parameters": name, "get": _failing(status, 404)},
        "/v1/models/{model}:predict": {"parameters": name, "post": _failing(predict, *_INFERENCE_ERRORS)},
    }


def _shared_memory(options: Options) -> dict[str, Any]:
    base = "/v2/systemsharedmemory"
    region, new = [_in_path("region", _NAME)], [_in_path("region", {**_NAME, "maxLength": 255})]
    regions, empty = reference("Regions"), reference("Empty")
    register = _post("registerRegion", "Makes part of a shared memory object known by name.", empty)
    register["requestBody"] = _body(reference("Registration"), options)
    one = _get("region", "A region.", regions)
    return {
        f"{base}/status": {"get": _get("regions", "All regions.", regions)},
        f"{base}/unregister": {"post": _post("unregisterRegions", "Forgets all regions.", empty)},
        f"{base}/region/{{region}}/status": {"parameters": region, "get": _failing(one, 400)},
        f"{base}/region/{{region}}/register": {"parameters": new, "post": _failing(register, *_BODY_ERRORS)},
        f"{base}/region/{{region}}/unregister": {
            "parameters": region,
            "post": _post("unregisterRegion", "Forgets a region.", empty),
        },
    }


def _metrics() -> dict[str, Any]:
    content = {kind: {"schema": {"type": "string"}} for kind in _EXPOSITIONS}
    answer = {"description": "The exposition, in the format that Accept prefers.", "content": content}
    return {"operationId": "metrics", "summary": "Metrics.", "tags": ["server"], "responses": {"200": answer}}


def _models(options: Options) -> list[tuple[str, str, list[Schema]]]:
    """The paths of a model and of one of its versions: path, suffix of operation names, parameters."""
    name, version = _in_path("model", _model_name(options)), _in_path("version", _NAME)
    path = "/v2/models/{model}"
    return [(path, "", [name]), (f"{path}/versions/{{version}}", "Version", [name, version])]


def _model_name(options: Options) -> Schema:
    # Clients that may load models may also name others.
    return _NAME if options.repository or not options.models else {**_NAME, "enum": sorted(options.models)}


def _in_path(name: str, schema: Schema) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _get(name: str, summary: str, schema: Schema) -> dict[str, Any]:
    responses = {"200": _answer(summary, schema)}
    return {"operationId": name, "summary": summary, "tags": ["server"], "responses": responses}


def _post(name: str, summary: str, schema: Schema) -> dict[str, Any]:
    return _get(name, summary, schema)


def _probe(name: str, summary: str, schema: Schema) -> dict[str, Any]:
    """A question whose answer is the status, 200 or 503, with one document for both."""
    operation = _get(name, summary, schema)
    operation["responses"]["503"] = _answer("No, or not now.", {"anyOf": [schema, reference("Error")]})
    return operation


def _failing(operation: dict[str, Any], *statuses: int) -> dict[str, Any]:
    """The operation, which may also be refused."""
    return {**operation, "responses": {**operation["responses"], **_errors(*statuses)}}


def _answer(description: str, schema: Schema) -> dict[str, Any]:
    return {"description": description, "content": {JSON: {"schema": schema}}}


def _errors(*statuses: int) -> dict[str, Any]:
    errors = {str(status): _answer(_REASONS[status], reference("Error")) for status in sorted(statuses)}
    for status in {"429", "503"} & errors.keys():
        errors[status]["headers"] = {"Retry-After": {"schema": {"type": "integer", "minimum": 0}}}
    return errors


def _body(
    schema: Schema, options: Options, *, required: bool = True, examples: dict[str, Any] | None = None
) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": schema}
    if examples:
        content["examples"] = examples
    body = {"required": required, "content": {JSON: content}}
    return body if options.max_bytes is None else {"description": f"At most {options.max_bytes} bytes.", **body}


def _examples(options: Options, example: Callable[[Signature], dict[str, Any]]) -> dict[str, Any]:
    return {
        f"model{index}": {"summary": f"Zeros for {name}.", "value": example(signature)}
        for index, (name, signature) in enumerate(options.models.items())
        if sum(spec.blank().size for spec in signature.inputs) <= _LARGEST_EXAMPLE
    }


def _infer_example(signature: Signature) -> dict[str, Any]:
    tensors = [(spec, spec.blank()) for spec in signature.inputs]
    return {
        "inputs": [
            {"name": spec.name, "datatype": spec.datatype, "shape": list(blank.shape), "data": blank.ravel().tolist()}
            for spec, blank in tensors
        ]
    }


def _predict_example(signature: Signature) -> dict[str, Any]:
    return {"inputs": {spec.name: spec.blank().tolist() for spec in signature.inputs}}
