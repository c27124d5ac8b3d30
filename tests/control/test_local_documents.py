"""What users write is read as they meant it, or refused with file, line and field."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from openclaw_operator.local.documents import parse, read
from openclaw_operator.local.failures import DocumentError
from openclaw_operator.names import Key

FILE = Path("/models/service.yaml")
SERVICE = """\
apiVersion: openclaw.io/v1alpha1
kind: InferenceService
metadata: {name: digits}
spec:
  model: {uri: file://./digits.onnx}
"""


def refusal(text: str) -> str:
    with pytest.raises(DocumentError) as refused:
        parse(text, file=FILE)
    return str(refused.value)


def test_a_relative_uri_is_taken_from_the_folder_of_its_file() -> None:
    (document,) = parse(SERVICE, file=FILE)
    (parent,) = parse(SERVICE.replace("./digits", "../other models/digits"), file=FILE)
    assert document.manifest["spec"]["model"]["uri"] == "file:///models/digits.onnx"
    assert parent.manifest["spec"]["model"]["uri"] == "file:///other%20models/digits.onnx"


def test_so_are_the_uris_of_what_optimizes_it() -> None:
    optimize = "{mode: fp32, calibration: {uri: file://./samples.npz}, cacheUri: file://../shared}"
    (document,) = parse(f"{SERVICE}  runtime: {{optimize: {optimize}}}\n", file=FILE)
    assert document.manifest["spec"]["runtime"]["optimize"] == {
        "mode": "fp32",
        "calibration": {"uri": (FILE.parent / "samples.npz").as_uri()},
        "cacheUri": (FILE.parent.parent / "shared").as_uri(),
    }


def test_a_bare_off_is_told_to_be_false() -> None:
    assert "spec.runtime.optimize.mode: False: Input should be 'off'" in refusal(
        f"{SERVICE}  runtime: {{optimize: {{mode: off}}}}\n"
    )


def test_other_uris_stay_as_they_are() -> None:
    (document,) = parse(SERVICE.replace("file://./digits.onnx", "s3://models/digits.onnx"), file=FILE)
    assert document.manifest["spec"]["model"]["uri"] == "s3://models/digits.onnx"


def test_a_file_may_hold_several_services_and_empty_documents() -> None:
    documents = parse(f"---\n{SERVICE}---\n---\n{SERVICE.replace('digits}', 'other, namespace: team}')}", file=FILE)
    assert [(document.key, document.line) for document in documents] == [
        (Key("default", "digits"), 2),
        (Key("team", "other"), 9),
    ]


def test_what_kubectl_adds_to_an_object_is_left_out() -> None:
    exported = yaml.safe_load(SERVICE) | {"status": {"url": "http://elsewhere"}}
    exported["metadata"] |= {"uid": "1", "resourceVersion": "7", "labels": {"team": "a"}}
    (document,) = parse(yaml.safe_dump(exported), file=FILE)
    assert document.manifest["metadata"] == {"name": "digits", "namespace": "default", "labels": {"team": "a"}}
    assert "status" not in document.manifest


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [1\nb: 2\n", "/models/service.yaml:2: is not YAML"),
        ("a: 1\na: 2\n", "/models/service.yaml:2: is not YAML: the key 'a' stands twice"),
        ("", "/models/service.yaml: declares no InferenceService"),
        ("- 1\n", "/models/service.yaml:1: an InferenceService is a mapping of fields, not list"),
        (f"{SERVICE}---\nkind: Service\napiVersion: v1\n", "/models/service.yaml:7: kind 'Service' of apiVersion 'v1'"),
        (SERVICE.replace("v1alpha1", "v1"), "apiVersion 'openclaw.io/v1' does not run in local mode"),
        (SERVICE.replace("{name: digits}", "{}"), "/models/service.yaml:3: metadata.name: Field required"),
        (
            SERVICE.replace("digits}", "digits, namespace: ../x}"),
            "/models/service.yaml:3: metadata.namespace: '../x': must hold",
        ),
        (SERVICE.replace("uri", "url"), "/models/service.yaml:5: "),
        (SERVICE + "  scalling: {}\n", "/models/service.yaml:6: spec.scalling: unknown field"),
        (SERVICE + "  scaling:\n    minReplicas: 0\n", "/models/service.yaml:7: spec.scaling.minReplicas: 0: "),
        (SERVICE + "  scaling: {minReplicas: 3, maxReplicas: 2}\n", "minReplicas must not exceed maxReplicas"),
        (SERVICE.replace("spec:", "spec: 5 #").replace("  model", "# model"), "spec: 5: "),
        ("\x00", "/models/service.yaml: is not YAML"),
    ],
)
def test_a_wrong_document_is_refused_with_its_place(text: str, expected: str) -> None:
    assert expected in refusal(text)


def test_a_service_declared_twice_is_refused_with_both_places(tmp_path: Path) -> None:
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text(SERVICE)
    two.write_text(f"# again\n{SERVICE}")
    with pytest.raises(DocumentError, match=rf"two.yaml:2: default/digits is declared already in {one}:1"):
        read([one, two])


def test_a_file_that_is_gone_or_no_text_is_refused(tmp_path: Path) -> None:
    binary = tmp_path / "model.onnx"
    binary.write_bytes(b"\x08\x07\xff\xfe")
    with pytest.raises(DocumentError, match=r"missing\.yaml: cannot be read: No such file or directory"):
        read([tmp_path / "missing.yaml"])
    with pytest.raises(DocumentError, match=r"model\.onnx: is not text: byte 2 is not UTF-8"):
        read([binary])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(metadata=JSON, spec=JSON, model=JSON, uri=JSON)
def test_whatever_is_written_is_read_or_refused_with_the_file(
    *, metadata: object, spec: object, model: object, uri: object
) -> None:
    head = {"apiVersion": "openclaw.io/v1alpha1", "kind": "InferenceService"}
    for value in (
        spec,
        {**head, "metadata": metadata, "spec": spec},
        {**head, "metadata": {"name": "digits"}, "spec": {"model": model}},
        {**head, "metadata": {"name": "digits"}, "spec": {"model": {"uri": uri}}},
    ):
        refused = ""
        try:
            parse(yaml.safe_dump(value), file=FILE)
        except DocumentError as error:
            refused = str(error)
        assert not refused or refused.startswith(f"{FILE}:")
