"""The messages of the protocol: what is checked in, against the compiler and another implementation."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import tritonclient.grpc as triton

from openclaw.serving.grpc import inference_pb2 as pb


def test_the_generated_code_is_what_the_proto_gives() -> None:
    path = Path(__file__).parents[2] / "tools" / "proto" / "generate.py"
    spec = importlib.util.spec_from_file_location("generate_protocol", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    generated: dict[Path, str] = module.generate()
    assert len(generated) == 2
    for path, text in generated.items():
        assert path.read_text() == text, f"{path} is old: python tools/proto/generate.py"


def test_names_numbers_and_types_are_those_of_another_implementation() -> None:
    theirs = {**_messages(triton.service_pb2.DESCRIPTOR), **_messages(triton.model_config_pb2.DESCRIPTOR)}
    for name, fields in _messages(pb.DESCRIPTOR).items():
        for field_name, described in fields.items():
            assert theirs[name][field_name] == described, f"{name}.{field_name}"
    service = "GRPCInferenceService"
    assert _methods(pb.DESCRIPTOR, service) == _methods(triton.service_pb2.DESCRIPTOR, service)
    assert dict(pb.DataType.items()) == dict(triton.model_config_pb2.DataType.items())


def _messages(file: Any) -> dict[str, dict[str, tuple[Any, ...]]]:
    """Number, type, whether it is repeated and message type of each field of each message."""
    found: dict[str, dict[str, tuple[Any, ...]]] = {}
    waiting = list(file.message_types_by_name.values())
    while waiting:
        described = waiting.pop()
        waiting.extend(described.nested_types)
        found[described.full_name] = {
            each.name: (each.number, each.type, each.is_repeated, each.message_type and each.message_type.full_name)
            for each in described.fields
        }
    return found


def _methods(file: Any, service: str) -> set[tuple[Any, ...]]:
    return {
        (each.name, each.input_type.full_name, each.output_type.full_name, each.client_streaming, each.server_streaming)
        for each in file.services_by_name[service].methods
    }
