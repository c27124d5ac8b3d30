"""KServe's V1 protocol: rows and columns in, predictions out."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from openclaw.errors import InvalidRequest
from openclaw.execute.session import Model
from openclaw.graph.signature import NUMPY_OF, Signature, TensorSpec
from openclaw.serving import v1
from openclaw.serving.protocol import InferResponse, Tensor, bind

ONE = Signature((TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("y", "FP32", (-1, 2)),))
TWO = Signature(
    (TensorSpec("a", "INT64", (-1,)), TensorSpec("b", "INT64", (-1, 2))),
    (TensorSpec("sum", "INT64", (-1,)), TensorSpec("name", "BYTES", (-1,))),
)
ROWS = [{"a": 1, "b": [2, 3]}, {"b": [5, 6], "a": 4}]
COLUMNS = {"a": [1, 4], "b": [[2, 3], [5, 6]]}


def predict(document: object, signature: Signature = ONE) -> v1.Prediction:
    return v1.decode_predict(json.dumps(document).encode(), signature)


def arrays(document: object, signature: Signature = ONE) -> dict[str, Any]:
    return dict(bind(predict(document, signature).request, signature)[0])


def predictions(*outputs: Tensor, columnar: bool) -> Any:
    encoded = v1.encode_predict(InferResponse("m", "1", outputs), columnar=columnar)
    document = json.loads(encoded.body)
    assert list(document) == ["predictions"]
    return document["predictions"]


@pytest.mark.parametrize(
    "document",
    [
        {"instances": [[1, 2], [3, 4.5]]},
        {"instances": [{"x": [1, 2]}, {"x": [3, 4.5]}]},
        {"inputs": [[1, 2], [3, 4.5]]},
        {"inputs": {"x": [[1, 2], [3, 4.5]]}},
        {"instances": [[1, 2], [3, 4.5]], "signature_name": "serving_default", "parameters": {"a": []}},
    ],
)
def test_the_only_input_is_given_as_rows_or_columns_with_or_without_its_name(document: object) -> None:
    np.testing.assert_array_equal(arrays(document)["x"], np.array([[1, 2], [3, 4.5]], np.float32), strict=True)
    assert predict(document).columnar == ("inputs" in json.dumps(document))


@pytest.mark.parametrize("document", [{"instances": ROWS}, {"inputs": COLUMNS}])
def test_several_inputs_are_given_by_name(document: object) -> None:
    got = arrays(document, TWO)
    np.testing.assert_array_equal(got["a"], np.array([1, 4]), strict=True)
    np.testing.assert_array_equal(got["b"], np.array([[2, 3], [5, 6]]), strict=True)


def test_a_model_answers_rows_with_rows_and_columns_with_columns(models: Any) -> None:
    model = Model.from_file(models.pair())
    answers = []
    for document in ({"instances": [{"a": 5, "b": 3}, {"a": 1, "b": 1}]}, {"inputs": {"a": [5, 1], "b": [3, 1]}}):
        prediction = predict(document, model.signature)
        given_, wanted = bind(prediction.request, model.signature)
        results = model.infer([output.name for output in wanted], given_)
        outputs = [Tensor(o.name, "INT64", array) for o, array in zip(wanted, results, strict=True)]
        answers.append(predictions(*outputs, columnar=prediction.columnar))
    assert answers == [
        [{"sum": 8, "difference": 2}, {"sum": 2, "difference": 0}],
        {"sum": [8, 2], "difference": [2, 0]},
    ]


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    datatype = draw(st.sampled_from(sorted(NUMPY_OF.keys() - {"BF16"})))
    dtype = NUMPY_OF[datatype]
    elements = (
        st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
        if datatype == "BYTES"
        else hnp.from_dtype(dtype, allow_nan=False, allow_infinity=False)
    )
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=1, max_side=3))
    return Tensor("x", datatype, draw(hnp.arrays(dtype, shape, elements=elements)))


@given(tensors())
def test_what_is_predicted_can_be_asked_for(tensor: Tensor) -> None:
    signature = Signature((TensorSpec("x", tensor.datatype, (-1,) * tensor.array.ndim),), ())
    answer = predictions(tensor, columnar=True)
    np.testing.assert_array_equal(arrays({"inputs": answer}, signature)["x"], tensor.array, strict=True)
    if tensor.array.ndim:
        np.testing.assert_array_equal(arrays({"instances": answer}, signature)["x"], tensor.array, strict=True)


def test_rows_of_several_outputs_are_objects() -> None:
    outputs = (
        Tensor("sum", "FP16", np.array([[1.5, np.nan], [np.inf, 0]], np.float16)),
        Tensor("name", "BYTES", np.array(["ä", "b"], dtype=object)),
        Tensor("half", "BF16", np.array([0x3F80, 0xBF80], np.uint16)),
    )
    assert predictions(*outputs, columnar=False) == [
        {"sum": [1.5, None], "name": "ä", "half": 1.0},
        {"sum": [None, 0.0], "name": "b", "half": -1.0},
    ]


@pytest.mark.parametrize("other", [np.zeros(3, np.float32), np.float32(1).reshape(())])
def test_outputs_without_common_rows_are_answered_as_columns_only(other: Any) -> None:
    outputs = (Tensor("y", "FP32", np.zeros(2, np.float32)), Tensor("z", "FP32", other))
    assert predictions(*outputs, columnar=True) == {"y": [0.0, 0.0], "z": other.tolist()}
    with pytest.raises(InvalidRequest, match=r"outputs y\[2\], z\[3?\] have no rows in common"):
        predictions(*outputs, columnar=False)


@pytest.mark.parametrize(
    ("document", "signature", "says"),
    [
        ([], ONE, "the body is []; an object with instances or inputs is needed"),
        ({}, ONE, "the body has neither instances nor inputs; give one of them"),
        ({"instances": [[1, 2]], "inputs": [[1, 2]]}, ONE, "the body has instances and inputs"),
        ({"instances": []}, ONE, "instances is []; a non-empty list of rows is needed"),
        ({"instances": None}, ONE, "instances is null"),
        ({"instances": {"x": [1, 2]}}, ONE, "instances is an object"),
        ({"instances": [[1, 2], [3]]}, ONE, "instances of x: data is nested unevenly"),
        ({"instances": [[1, 2], 3]}, ONE, "nested unevenly"),
        ({"instances": [[1, "2"]]}, ONE, 'instances of x: data holds "2"; FP32 takes numbers'),
        ({"instances": [{"x": [1, 2]}, [3, 4]]}, ONE, "instances[1] is [3,4], but others are objects"),
        ({"instances": [[3, 4], {"x": [1, 2]}]}, ONE, "nested unevenly"),
        ({"instances": [{"y": [1, 2]}]}, ONE, 'instances[0]: there is no input "y"; the model takes x: FP32[-1,2]'),
        ({"instances": [{"a": 1, "b": [2, 3]}, {"a": 1}]}, TWO, 'instances[1]: input "b" is missing'),
        ({"instances": [[1, 2]]}, TWO, "instances does not say which input it is for; give values by name"),
        ({"inputs": [[1, 2]]}, TWO, "inputs does not say which input it is for"),
        ({"inputs": {"a": [1]}}, TWO, 'inputs: input "b" is missing'),
        ({"inputs": {"a": [1.5], "b": [[1, 2]]}}, TWO, "inputs of a: data holds 1.5; INT64 takes integers"),
        ({"inputs": None}, ONE, "inputs of x: data holds null"),
        ({"inputs": 1}, ONE, 'input "x" has shape []; the model takes [-1, 2]'),
        ({"instances": [[1, 2, 3]]}, ONE, 'input "x" has shape [1, 3]; the model takes [-1, 2]'),
        ({"instances": [1, 2]}, ONE, 'input "x" has shape [2]; the model takes [-1, 2]'),
    ],
)
def test_a_wrong_prediction_is_refused_with_what_is_allowed(document: Any, signature: Signature, says: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        arrays(document, signature)
    assert says in str(refusal.value)


@pytest.mark.parametrize("depth", [63, 64, 65, 66, 200, 2000])
def test_deep_lists_are_refused(depth: int) -> None:
    body = b'{"inputs":' + b"[" * depth + b"1" + b"]" * depth + b"}"
    with pytest.raises(InvalidRequest):
        bind(v1.decode_predict(body, ONE).request, ONE)


JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda child: st.lists(child, max_size=3) | st.dictionaries(st.sampled_from(["x", "a", "b", "c"]), child),
    max_leaves=12,
)


@given(st.sampled_from(["instances", "inputs"]), JSONISH, st.sampled_from([ONE, TWO]))
def test_any_document_is_refused_or_bound(field: str, value: Any, signature: Signature) -> None:
    try:
        got = arrays({field: value}, signature)
    except InvalidRequest as refusal:
        sentence = str(refusal)
    else:
        sentence = "bound"
        for spec in signature.inputs:
            assert spec.accepts(got[spec.name].shape)
            assert got[spec.name].dtype == spec.dtype
    assert 0 < len(sentence) < 500


@given(st.binary(max_size=60))
def test_any_bytes_are_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        v1.decode_predict(body, ONE)


def test_models_are_listed_with_their_status() -> None:
    assert v1.models(("a", "b")) == {"models": ["a", "b"]}
    assert v1.status("a", ready=False) == {"name": "a", "ready": False}
