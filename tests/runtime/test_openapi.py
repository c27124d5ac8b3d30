"""The OpenAPI document: sound in itself, and of one mind with the decoders about what is right."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from openclaw.errors import RequestError
from openclaw.graph.signature import NUMPY_OF, Signature, TensorSpec
from openclaw.serving import v1
from openclaw.serving.metadata import configuration, metadata
from openclaw.serving.openapi import Options, document
from openclaw.serving.protocol import (
    InferRequest,
    InferResponse,
    RequestedOutput,
    Tensor,
    bind,
    decode_request,
    encode_request,
    encode_response,
)
from openclaw.serving.sharedmemory import FOLDER, Regions

SIGNATURE = Signature(
    (TensorSpec("x", "FP32", (-1, 2)), TensorSpec("words", "BYTES", (2,))), (TensorSpec("y", "BF16", (-1, 2)),)
)
HUGE = Signature((TensorSpec("x", "FP32", (1, 3, 224, 224)),), (TensorSpec("y", "FP32", (1, 1000)),))
MODELS = {"small": SIGNATURE, "huge": HUGE}
EVERYTHING = document(Options(version="1", models=MODELS, repository=True, shared_memory=True, max_bytes=1 << 20))
PLAIN = document(Options(version="1", models=MODELS))
CHOICES: list[dict[str, Any]] = [
    {"models": models, "v1": v1_, "repository": repository, "shared_memory": shared_memory}
    for models, v1_, repository, shared_memory in product([MODELS, {}], *[[False, True]] * 3)
]
DOCUMENTS = [document(Options(version="1", **choice)) for choice in CHOICES]


@cache
def validator(name: str, *, everything: bool = True) -> Draft202012Validator:
    components = (EVERYTHING if everything else PLAIN)["components"]
    return Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": components})


def walk(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from walk(child)


def operations(of: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    for path, item in of["paths"].items():
        for method in item.keys() & {"get", "post"}:
            yield path, item, item[method]


@pytest.mark.parametrize("of", DOCUMENTS)
def test_every_schema_is_a_schema_and_every_reference_leads_to_one(of: dict[str, Any]) -> None:
    schemas = of["components"]["schemas"]
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    references = {part["$ref"] for part in walk(of) if "$ref" in part}
    assert references <= {f"#/components/schemas/{name}" for name in schemas}


@pytest.mark.parametrize("of", DOCUMENTS)
def test_every_parameter_of_a_path_is_declared(of: dict[str, Any]) -> None:
    for path, item in of["paths"].items():
        declared = [parameter["name"] for parameter in item.get("parameters", [])]
        assert declared == re.findall(r"{(\w+)}", path)


@pytest.mark.parametrize("of", DOCUMENTS)
def test_operations_have_names_of_their_own_and_documents_for_each_status(of: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, _, operation in operations(of)]
    assert len(set(names)) == len(names)
    for _, _, operation in operations(of):
        assert "200" in operation["responses"]
        assert all(response["content"] for response in operation["responses"].values())


def test_only_what_is_allowed_is_described() -> None:
    assert not [path for path in PLAIN["paths"] if "sharedmemory" in path or "load" in path]
    assert "shared_memory" not in json.dumps(PLAIN)
    assert "/v2/systemsharedmemory/region/{region}/register" in EVERYTHING["paths"]
    load, unload = (EVERYTHING["paths"][f"/v2/repository/models/{{model}}/{verb}"] for verb in ("load", "unload"))
    assert "507" in load["post"]["responses"]
    assert "507" not in unload["post"]["responses"]
    assert "/v1/models/{model}:predict" in PLAIN["paths"]
    without = document(Options(version="1", models=MODELS, v1=False))
    assert not [path for path in without["paths"] if path.startswith("/v1")]


def test_models_are_named_where_no_others_can_come() -> None:
    def names(of: dict[str, Any]) -> Any:
        return of["paths"]["/v2/models/{model}"]["parameters"][0]["schema"].get("enum")

    assert names(PLAIN) == ["huge", "small"]
    assert names(EVERYTHING) is None


def examples(path: str) -> dict[str, Any]:
    content = PLAIN["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    return {example["summary"]: example["value"] for example in content["examples"].values()}


def test_examples_are_what_their_model_takes_and_large_ones_are_left_out() -> None:
    infer, predict = examples("/v2/models/{model}/infer"), examples("/v1/models/{model}:predict")
    assert list(infer) == list(predict) == ["Zeros for small."]
    request = decode_request(json.dumps(infer["Zeros for small."]).encode())
    prediction = v1.decode_predict(json.dumps(predict["Zeros for small."]).encode(), SIGNATURE)
    for given_ in (request, prediction.request):
        arrays, _ = bind(given_, SIGNATURE)
        assert {name: array.shape for name, array in arrays.items()} == {"x": (1, 2), "words": (2,)}


@pytest.mark.parametrize("datatype", sorted(NUMPY_OF))
@pytest.mark.parametrize("binary", [True, False])
def test_what_is_encoded_is_as_described(datatype: str, binary: bool) -> None:
    blank = TensorSpec("x", datatype, (2, 3)).blank()
    tensor = Tensor("x", datatype, blank, binary, {"unit": "mm"})
    outputs = (RequestedOutput("y", binary), RequestedOutput("z", not binary))
    sent = encode_request(InferRequest((tensor,), outputs, "7", binary, {"priority": 1}))
    validator("InferRequest").validate(json.loads(sent.body[: sent.header_length]))
    got = encode_response(InferResponse("m", "1", (tensor,), "7", {"done": True}))
    validator("InferResponse").validate(json.loads(got.body[: got.header_length]))
    for columnar in (True, False):
        predicted = v1.encode_predict(InferResponse("m", "1", (tensor,)), columnar=columnar)
        validator("PredictResponse").validate(json.loads(predicted.body))


def test_values_that_are_no_numbers_are_described_as_null() -> None:
    tensor = Tensor("y", "FP32", np.array([np.nan, 1], np.float32))
    got = encode_response(InferResponse("m", "1", (tensor,)))
    validator("InferResponse").validate(json.loads(got.body))


def test_metadata_and_states_are_as_described() -> None:
    validator("ModelMetadata").validate(metadata("m", "1", SIGNATURE))
    validator("ModelConfig").validate(configuration("m", SIGNATURE))
    validator("Models").validate(v1.models(["a"]))
    validator("ModelReady").validate(v1.status("a", ready=True))


VALUES = (
    st.none() | st.booleans() | st.integers(-2, 9) | st.floats(allow_nan=False) | st.sampled_from(["", "x", "FP32"])
)
JSONISH = st.recursive(
    VALUES, lambda child: st.lists(child, max_size=3) | st.dictionaries(st.sampled_from("ab"), child, max_size=2)
)
KEYS = [
    "binary_data", "binary_data_output", "binary_data_size", "data", "id", "inputs", "instances", "offset", "outputs",
    "parameters", "shared_memory_byte_size", "shared_memory_offset", "shared_memory_region", "unit",
]  # fmt: skip
INPUT = {"name": "x", "datatype": "FP32", "shape": [1]}
SHARED = {"shared_memory_region": "r", "shared_memory_offset": 4, "shared_memory_byte_size": 4}
REQUESTS = [
    {
        "id": "1",
        "parameters": {"binary_data_output": False, "priority": 1},
        "inputs": [{**INPUT, "data": [1], "parameters": {"unit": "mm"}}],
        "outputs": [{"name": "y", "parameters": {"binary_data": True, "unit": "mm"}}],
    },
    {"inputs": [{**INPUT, "shape": [1, 2], "data": [[1, 2.5]]}, {**INPUT, "name": "y", "data": [1]}]},
    {"inputs": [{**INPUT, "shape": [0], "parameters": {"binary_data_size": 0}}]},
    {"inputs": [{**INPUT, "parameters": SHARED}], "outputs": [{"name": "y", "parameters": SHARED}]},
]
PREDICTIONS = [{"instances": [1, 2]}, {"instances": [{"a": 1}]}, {"inputs": [1]}, {"inputs": {"a": [1]}}]
REGISTRATIONS = [{"key": "object", "byte_size": 8}, {"key": "/object", "offset": 8, "byte_size": 8}]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


@st.composite
def almost(draw: st.DrawFn, rights: list[Any]) -> Any:
    """One of the right documents, with another value in one place, or with one field less or more."""
    wrong = json.loads(json.dumps(draw(st.sampled_from(rights))))
    *path, last = draw(st.sampled_from(list(places(wrong))[1:]))
    holder = wrong
    for key in path:
        holder = holder[key]
    change = draw(st.sampled_from(["replace", "remove", "add"]))
    if change == "remove":
        del holder[last]
    elif change == "replace" or isinstance(holder, list):
        holder[last] = draw(JSONISH)
    else:
        holder[draw(st.sampled_from(KEYS))] = draw(JSONISH)
    return wrong


@pytest.fixture(scope="module")
def regions(tmp_path_factory: pytest.TempPathFactory) -> Regions:
    folder = tmp_path_factory.mktemp("shm")
    (folder / "object").write_bytes(bytes(64))
    regions = Regions(max_bytes=64, folder=folder)
    regions.register("r", key="object", byte_size=64)
    return regions


@pytest.mark.parametrize("right", REQUESTS)
def test_the_right_requests_are_described_and_understood(right: Any, regions: Regions) -> None:
    validator("InferRequest").validate(right)
    assert decode_request(json.dumps(right).encode(), regions=regions).inputs


@pytest.mark.parametrize("shared", [False, True])
@settings(max_examples=400)
@given(request_=almost(REQUESTS) | JSONISH)
def test_what_the_document_forbids_is_refused(shared: bool, request_: Any, regions: Regions) -> None:
    described = validator("InferRequest", everything=shared).is_valid(request_)
    try:
        decode_request(json.dumps(request_).encode(), regions=regions if shared else None)
    except RequestError:
        return
    assert described


@given(almost(PREDICTIONS) | JSONISH)
def test_what_the_document_forbids_of_a_prediction_is_refused(prediction: Any) -> None:
    described = validator("PredictRequest").is_valid(prediction)
    only = Signature((TensorSpec("a", "FP32", (-1,)),), ())
    try:
        v1.decode_predict(json.dumps(prediction).encode(), only)
    except RequestError:
        return
    assert described


@given(almost(REGISTRATIONS))
def test_what_the_document_forbids_of_a_registration_is_refused(regions: Regions, registration: Any) -> None:
    described = validator("Registration").is_valid(registration)
    regions.unregister("new")
    try:
        regions.register(
            "new",
            key=registration.get("key"),
            offset=registration.get("offset", 0),
            byte_size=registration.get("byte_size"),
        )
    except RequestError:
        return
    assert described
    validator("Regions").validate(regions.status())


def test_the_folder_of_shared_memory_is_that_of_the_system() -> None:
    assert Path("/dev/shm") == FOLDER
