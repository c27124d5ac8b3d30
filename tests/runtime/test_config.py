"""Settings: defaults, every kind of mistake, and what overrides what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw.config import parse
from openclaw.errors import ConfigInvalid
from openclaw.serving.settings import layered

MODEL = {"name": "digits", "uri": "s3://models/digits.onnx"}
FULL = {
    "model": {
        **MODEL,
        "sha256": "ab" * 32,
        "format": "onnx",
        "warmup": {"requests": 3},
        "downloadTimeoutSeconds": 60,
        "maxBytes": 1000,
        "prepared": "/forms",
        "pinned": True,
        "batching": {
            "maxBatchSize": 16,
            "latencyTargetSeconds": 0.5,
            "maxQueueLength": 100,
            "maxQueueBytes": 1000,
            "padding": "never",
            "mask": "mask",
        },
    },
    "models": [],
    "server": {
        "port": 9000,
        "grpcPort": 9001,
        "host": "127.0.0.1",
        "workers": 1,
        "threads": None,
        "device": "auto",
        "maxRequestBytes": 100,
        "maxInferenceSeconds": 10,
        "modelControl": True,
        "modelFolder": "/models",
        "sharedMemory": True,
        "memoryBudgetBytes": 629145600,
        "drainDelaySeconds": 1,
        "drainTimeoutSeconds": 2,
    },
}


def test_name_and_uri_are_enough() -> None:
    config = parse({"model": MODEL})
    assert (config.server.port, config.server.host, config.server.workers) == (8080, "0.0.0.0", 1)
    assert (config.server.drain_delay_seconds, config.server.drain_timeout_seconds) == (5, 45)
    assert (config.model.warmup.requests, config.model.download_timeout_seconds) == (1, 600)
    assert (config.model.max_bytes, config.server.max_request_bytes) == (17179869184, 67108864)


def test_every_key_of_the_file_arrives_and_goes_back() -> None:
    config = parse(FULL)
    assert json.loads(config.model_dump_json(by_alias=True)) == FULL


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": None}, "model is null"),
        ({"model": {"name": "digits"}}, "model.uri is required"),
        ({"model": {**MODEL, "name": "a b"}}, 'model.name is "a b"'),
        ({"model": {**MODEL, "sha256": "AB"}}, 'model.sha256 is "AB"'),
        ({"model": {**MODEL, "format": "tf"}}, "model.format is \"tf\": input should be 'onnx'"),
        ({"model": {**MODEL, "Sha256": ""}}, "model.Sha256 is not a known key; allowed here: name, uri, sha256"),
        (
            {"model": {**MODEL, "warmup": {"request": 1}}},
            "model.warmup.request is not a known key; allowed here: requests",
        ),
        ({"model": {**MODEL, "max_bytes": 1}}, "model.max_bytes is not a known key"),
        ({"model": {**MODEL, "batching": {"maxBatchSize": 0}}}, "model.batching.maxBatchSize is 0"),
        ({"models": [MODEL]}, "two models are called 'digits'; each needs a name of its own"),
        ({"server": {"workers": 2, "modelControl": True}}, "need server.workers to be 1"),
        ({"server": {"workers": 2, "grpcPort": 0}}, "server.grpcPort is 0 with several workers"),
        ({"server": {"modelFolder": "/models"}}, "server.modelFolder needs server.modelControl"),
        ({"server": {"port": "80"}}, 'server.port is "80": input should be a valid integer'),
        ({"server": {"port": 65536}}, "server.port is 65536: input should be less than or equal to 65535"),
        ({"server": {"workers": 0}}, "server.workers is 0: input should be greater than or equal to 1"),
        (
            {"server": {"memoryBudgetBytes": 1000}},
            "server.memoryBudgetBytes is 1000: input should be greater than or equal to 16777216",
        ),
        ({"server": {"threads": True}}, "server.threads is true"),
        ({"serve": {}}, "serve is not a known key; allowed here: model, models, server"),
    ],
)
def test_a_mistake_is_named_with_its_value_and_what_is_allowed(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigInvalid) as refusal:
        parse({"model": MODEL, **change})
    assert says in str(refusal.value)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ConfigInvalid) as refusal:
        parse({"server": {"port": -1, "workers": 0}})
    assert str(refusal.value).count(";") == 2


KEYS = st.sampled_from(["model", "server", "name", "uri", "port", "warmup", "x"])
SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=4)


@given(st.recursive(SCALARS, lambda child: st.lists(child) | st.dictionaries(KEYS, child)))
def test_any_document_is_a_configuration_or_a_sentence(document: Any) -> None:
    if not isinstance(document, dict):
        document = {"model": document}
    try:
        config = parse(document)
    except ConfigInvalid as refusal:
        sentence = str(refusal)
    else:
        sentence = f"model {config.model.name}"
    assert "model" in sentence or "server" in sentence or "key" in sentence


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is not JSON"),
        ("[]", "holds [], not an object"),
        ("[" * 10_000, "is not JSON"),
        ('{"model": 3}', "model is 3; an object"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "server.json"
    file.write_text(text)
    with pytest.raises(ConfigInvalid) as refusal:
        layered(file, (), {})
    assert says in str(refusal.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match=r"server\.json cannot be read: No such file"):
        layered(tmp_path / "server.json", (), {})


def test_the_command_line_is_above_the_file(tmp_path: Path) -> None:
    file = tmp_path / "server.json"
    file.write_text(json.dumps(FULL))
    options = {"port": 1, "name": "other", "warmup_requests": 0, "threads": None, "drain_delay": 9}
    config = layered(file, (), options)
    assert (config.server.port, config.model.name, config.model.warmup.requests) == (1, "other", 0)
    assert (config.server.drain_delay_seconds, config.server.grpc_port) == (9, 9001)


def test_a_plain_path_is_a_file_and_names_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = layered(None, ["my models/digits.v1.onnx"], {})
    assert config.model.name == "digits.v1"
    assert config.model.uri == f"{tmp_path.as_uri()}/my%20models/digits.v1.onnx"


def test_a_file_without_a_model_takes_the_one_given(tmp_path: Path) -> None:
    file = tmp_path / "server.json"
    file.write_text('{"server": {"port": 1}}')
    config = layered(file, ["https://host/resnet.onnx?sig=1"], {})
    assert (config.model.name, config.server.port) == ("resnet", 1)


def test_a_model_named_twice_or_never_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "server.json"
    file.write_text(json.dumps(FULL))
    with pytest.raises(ConfigInvalid, match="the model is named twice"):
        layered(file, ["other.onnx"], {})
    with pytest.raises(ConfigInvalid, match="no model is named: give a path or URI, or --config, or set MODEL_PATH"):
        layered(None, (), {})


def test_further_models_are_served_beside_the_first_with_the_same_settings() -> None:
    config = layered(None, ["digits.onnx", "s3://models/letters.onnx"], {"max_batch_size": 16, "warmup_requests": 2})
    assert [model.name for model in config.all_models] == ["digits", "letters"]
    assert config.models[0].uri == "s3://models/letters.onnx"
    assert {(model.batching.max_batch_size, model.warmup.requests) for model in config.all_models} == {(16, 2)}


def test_a_name_for_several_models_is_refused() -> None:
    with pytest.raises(ConfigInvalid, match="--name is given with 2 models; give it with one"):
        layered(None, ["a.onnx", "b.onnx"], {"name": "both"})


def test_a_mistake_of_the_file_is_told_although_the_command_line_says_more(tmp_path: Path) -> None:
    file = tmp_path / "server.json"
    file.write_text(json.dumps({"model": {**MODEL, "batching": 5}}))
    with pytest.raises(ConfigInvalid, match=r"model\.batching is 5"):
        layered(file, (), {"max_batch_size": 16})
