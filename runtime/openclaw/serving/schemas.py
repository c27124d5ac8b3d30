"""JSON Schemas (2020-12) of what travels over REST: the components of the OpenAPI document."""

from __future__ import annotations

from typing import Any

from openclaw.graph.signature import NUMPY_OF
from openclaw.memory.tiers import Tier

Schema = dict[str, Any]

_STRING: Schema = {"type": "string"}
_BOOLEAN: Schema = {"type": "boolean"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_SIZE: Schema = {**_COUNT, "maximum": 2**31 - 1}
_DATATYPE: Schema = {"type": "string", "enum": list(NUMPY_OF)}


def reference(name: str) -> Schema:
    """A component by its name."""
    return {"$ref": f"#/components/schemas/{name}"}


def record(properties: dict[str, Schema], *, optional: tuple[str, ...] = (), description: str = "") -> Schema:
    """An object whose properties are all required but the ``optional``; further ones may stand beside them."""
    schema: Schema = {"type": "object", "properties": properties}
    required = [name for name in properties if name not in optional]
    if required:
        schema["required"] = required
    return {**schema, "description": description} if description else schema


def array(items: Schema, **limits: int) -> Schema:
    """A list of ``items``."""
    return {"type": "array", "items": items, **limits}


def _or_null(schema: Schema) -> Schema:
    return {**schema, "type": [schema["type"], "null"]}


def _sized(prefix: str) -> Schema:
    description = "Bytes of this tensor among those after the JSON, in the order of the tensors."
    return record(
        {"binary_data_size": {**_COUNT, "description": description}},
        description=f"{prefix} travels as binary data.",
    )


_PARAMETER: Schema = {"type": ["string", "number", "boolean"]}
_PARAMETERS: Schema = {
    "type": "object",
    "additionalProperties": _PARAMETER,
    "description": "What goes beyond the protocol; what is not known is ignored.",
}
_NO_PARAMETERS: Schema = {
    "type": "object",
    "properties": {"unload_dependents": {"description": "No model depends on another here."}},
    "additionalProperties": False,
}
_DATA: Schema = {
    "type": "array",
    "items": {"anyOf": [{"type": ["number", "string", "boolean"]}, {"type": "array"}]},
    "description": "Values in row-major order, flat or nested as shape says.",
}
_ANSWERED: Schema = {
    "type": "array",
    "items": {"type": ["number", "string", "boolean", "null"]},
    "description": "Values in row-major order, flat; null where a number is NaN or infinite.",
}
_SHAPE: Schema = {"type": "array", "items": _SIZE, "maxItems": 64}
_SPENT = record({"count": _COUNT, "ns": _COUNT}, description="How often, and for how many nanoseconds in all.")


def components(*, shared_memory: bool) -> dict[str, Schema]:
    """Every schema by its name.

    Args:
        shared_memory: whether tensors may lie in shared memory.
    """
    documents = {
        "Error": record({"error": {**_STRING, "description": "What is wrong, and what is allowed."}}),
        "Empty": {"type": "object"},
        **_inference(shared_memory=shared_memory),
        **_description(),
        **_statistics(),
        **_v1(),
    }
    if shared_memory:
        documents |= _shared_memory()
    return documents


def _inference(*, shared_memory: bool) -> dict[str, Schema]:
    head = {"name": {**_STRING, "minLength": 1}, "datatype": _DATATYPE, "shape": _SHAPE}
    ways: list[Schema] = [
        {"required": ["data"]},
        {"required": ["parameters"], "properties": {"parameters": _sized("The tensor")}},
    ]
    if shared_memory:
        ways.append({"required": ["parameters"], "properties": {"parameters": reference("Window")}})
    given = record(
        {**head, "data": _DATA, "parameters": _or_null(_PARAMETERS)},
        optional=("data", "parameters"),
        description="A tensor of the request: with data, or with a size among the bytes after the JSON.",
    )
    requested = record(
        {"name": _STRING, "parameters": _or_null(_parameters(binary_data=_BOOLEAN))},
        optional=("parameters",),
        description="An output that is asked for; with parameters.binary_data as bytes after the JSON.",
    )
    request = record(
        {
            "id": _or_null(_STRING),
            "parameters": _or_null(_parameters(binary_data_output=_BOOLEAN)),
            "inputs": array(reference("RequestInput"), minItems=1),
            "outputs": _or_null(array(reference("RequestOutput"))),
        },
        optional=("id", "parameters", "outputs"),
    )
    answered = record(
        {**head, "data": _ANSWERED, "parameters": _PARAMETERS},
        optional=("data", "parameters"),
        description="A tensor of the answer: with data, or with its binary_data_size.",
    )
    response = record(
        {
            "model_name": _STRING,
            "model_version": _STRING,
            "id": _STRING,
            "parameters": _PARAMETERS,
            "outputs": array(reference("ResponseOutput")),
        },
        optional=("id", "parameters"),
    )
    return {
        "RequestInput": {**given, "oneOf": ways},
        "RequestOutput": requested,
        "InferRequest": request,
        "ResponseOutput": answered,
        "InferResponse": response,
    }


def _parameters(**known: Schema) -> Schema:
    return {**_PARAMETERS, "properties": known}


def _description() -> dict[str, Schema]:
    sizes = {"type": "array", "items": {"type": "integer", "minimum": -1}, "description": "-1: any size."}
    spec = record({"name": _STRING, "datatype": _DATATYPE, "shape": sizes})
    tensors = array(reference("TensorMetadata"))
    state = {"type": "string", "description": "READY where it answers."}
    return {
        "ServerMetadata": record({"name": _STRING, "version": _STRING, "extensions": array(_STRING)}),
        "ServerLive": record({"live": _BOOLEAN}),
        "ServerReady": record({"ready": _BOOLEAN}),
        "ModelReady": record({"name": _STRING, "ready": _BOOLEAN}),
        "Models": record({"models": array(_STRING)}),
        "TensorMetadata": spec,
        "ModelMetadata": record(
            {"name": _STRING, "versions": array(_STRING), "platform": _STRING, "inputs": tensors, "outputs": tensors}
        ),
        "TensorConfig": record({"name": _STRING, "data_type": _STRING, "dims": sizes}),
        "ModelConfig": record(
            {
                "name": _STRING,
                "platform": _STRING,
                "backend": _STRING,
                "max_batch_size": _COUNT,
                "input": array(reference("TensorConfig")),
                "output": array(reference("TensorConfig")),
                "model_transaction_policy": record({"decoupled": _BOOLEAN}),
            }
        ),
        "ControlRequest": record({"parameters": _or_null(_NO_PARAMETERS)}, optional=("parameters",)),
        "IndexRequest": record({"ready": _BOOLEAN}, optional=("ready",)),
        "Index": array(record({"name": _STRING, "version": _STRING, "state": state, "reason": _STRING})),
    }


def _statistics() -> dict[str, Schema]:
    kinds = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")
    batch = record({"batch_size": _COUNT, "compute_infer": reference("Spent")})
    model = record(
        {
            "name": _STRING,
            "version": _STRING,
            "tier": {**_STRING, "enum": [tier.value for tier in Tier], "description": "Where the weights are."},
            "last_inference": {**_COUNT, "description": "Milliseconds since 1970."},
            "inference_count": {**_COUNT, "description": "Rows."},
            "execution_count": {**_COUNT, "description": "Runs of the model."},
            "inference_stats": record({kind: reference("Spent") for kind in kinds}),
            "batch_stats": array(batch),
        }
    )
    return {"Spent": _SPENT, "Statistics": record({"model_stats": array(model)})}


def _v1() -> dict[str, Schema]:
    rows = record(
        {"instances": {"type": "array", "minItems": 1, "description": "Rows, or objects of rows by input name."}}
    )
    columns = record({"inputs": {"description": "A tensor as nested lists, or an object of tensors by input name."}})
    predictions = {"type": ["array", "object", "number", "string", "boolean", "null"]}
    return {
        "PredictRequest": {"type": "object", "oneOf": [rows, columns]},
        "PredictResponse": record({"predictions": predictions}),
    }


def _shared_memory() -> dict[str, Schema]:
    size: Schema = {"type": "integer", "minimum": 1, "maximum": 2**63 - 1}
    offset: Schema = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}
    key = {"type": "string", "minLength": 1, "maxLength": 256, "description": "As shm_open takes it."}
    window = {"shared_memory_region": _STRING, "shared_memory_offset": offset, "shared_memory_byte_size": offset}
    registered = {"name": _STRING, "key": _STRING, "offset": offset, "byte_size": size}
    return {
        "Window": record(
            window, optional=("shared_memory_offset",), description="Where a tensor lies in shared memory."
        ),
        "Registration": record({"key": key, "offset": offset, "byte_size": size}, optional=("offset",)),
        "Regions": array(record(registered)),
    }
