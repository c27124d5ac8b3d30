"""What a user may write, and the sentence for each thing that is refused."""

from typing import Any

import pytest
from hypothesis import given

from openclaw_operator.api.base import ApiModel
from openclaw_operator.api.spec import InferenceServiceSpec, Scaling
from openclaw_operator.api.v1alpha1 import InferenceService
from openclaw_operator.errors import Terminal
from simulation import services
from simulation.services import having

Manifest = dict[str, Any]


def refusal(spec: Any, **metadata: Any) -> str:
    with pytest.raises(Terminal) as refused:
        InferenceService.parse(services.manifest(spec, **metadata))
    assert refused.value.reason == "InvalidSpec"
    return refused.value.message


def model(**fields: Any) -> Manifest:
    return {"model": {"uri": "s3://models/digits.onnx", **fields}}


def optimize(**fields: Any) -> Manifest:
    return having(runtime={"optimize": {"cacheUri": "s3://models/optimized", **fields}})


@given(spec=services.specs)
def test_every_valid_spec_is_accepted_and_kept_as_written(spec: Manifest) -> None:
    parsed = InferenceService.parse(services.manifest(spec)).spec
    again = parsed.model_dump(by_alias=True, exclude_unset=True)
    assert again == spec


def test_the_least_and_the_full_service_are_accepted() -> None:
    assert services.service(services.LEAST).spec.model.format == "onnx"
    assert set(services.FULL) == {
        field.alias
        for name, field in InferenceServiceSpec.model_fields.items()
        if field.alias not in InferenceServiceSpec.reserved_fields() and name
    }


REFUSED = {
    "no model": ({}, "spec.model: Field required"),
    "no uri": ({"model": {}}, "spec.model.uri: Field required"),
    "a model that is a string": ({"model": "s3://m"}, "spec.model: 's3://m': must be an object with fields"),
    "a spec that is a string": ("s3://m", "spec: 's3://m': must be an object with fields"),
    "unknown scheme": (
        model(uri="ftp://host/digits.onnx"),
        "spec.model: uri must begin with one of s3://, gs://, az://, http://, https://, file://; "
        "write for example s3://my-bucket/model.onnx",
    ),
    "scheme without a place": (model(uri="s3://"), "uri must begin with one of s3://"),
    "a path without a scheme": (model(uri="/models/digits.onnx"), "uri must begin with one of s3://"),
    "a relative file": (
        model(uri="file://./digits.onnx"),
        "uri: a file needs an absolute path, file:///models/model.onnx; "
        "file://./ is relative to the YAML and works in local mode only",
    ),
    "a digest of the wrong length": (model(sha256="abc"), "spec.model.sha256: 'abc': String should match pattern"),
    "a digest in capitals": (model(sha256="A" * 64), "spec.model.sha256"),
    "another format": (model(format="savedmodel"), "spec.model.format: 'savedmodel': Input should be 'onnx'"),
    "a model name with a slash": (model(name="a/b"), "spec.model.name: 'a/b'"),
    "too many warm-up requests": (model(warmup={"requests": 1001}), "spec.model.warmup.requests: 1001"),
    "a secret that is no name": (model(credentials={"secretName": "Not_A_Name"}), "spec.model.credentials.secretName"),
    "an unknown field": (
        having(scaling={"minReplcas": 2}),
        "spec.scaling.minReplcas: 2: unknown field: check the spelling or remove it",
    ),
    "an unknown group": (having(tuning={}), "spec.tuning: unknown field"),
    "fewest above most": (
        having(scaling={"minReplicas": 3, "maxReplicas": 2}),
        "spec.scaling: minReplicas must not exceed maxReplicas: raise maxReplicas or lower minReplicas",
    ),
    "no replicas": (having(scaling={"minReplicas": 0}), "spec.scaling.minReplicas: 0: Input should be greater than"),
    "most below the default of fewest": (having(scaling={"maxReplicas": 0}), "spec.scaling.maxReplicas: 0"),
    "a number as a string": (having(scaling={"minReplicas": "3"}), "spec.scaling.minReplicas: '3'"),
    "a boolean as a string": (having(suspend="yes"), "spec.suspend: 'yes': Input should be a valid boolean"),
    "an unknown policy": (
        having(scaling={"behavior": {"scaleUp": {"policies": [{"type": "Nodes", "value": 1, "periodSeconds": 1}]}}}),
        "spec.scaling.behavior.scaleUp.policies.0.type: 'Nodes': Input should be 'Pods' or 'Percent'",
    ),
    "requests above limits": (
        having(resources={"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}),
        "spec.resources: requests must not exceed limits: lower the request or raise the limit",
    ),
    "a quantity that is none": (
        having(resources={"limits": {"cpu": "lots"}}),
        "spec.resources.limits.cpu: 'lots': 'lots' is not a quantity: write a number with an optional suffix",
    ),
    "a quantity beyond all bounds": (having(resources={"limits": {"cpu": "1e999999999999"}}), "is not a quantity"),
    "a quantity with a line feed": (having(resources={"limits": {"cpu": "1\n"}}), "is not a quantity"),
    "half a core as a number": (
        having(resources={"limits": {"cpu": 0.5}}),
        'spec.resources.limits.cpu: 0.5: write a whole number, or a string, as in 2 or "500m"',
    ),
    "a quantity that is a boolean": (having(resources={"limits": {"cpu": True}}), "write a whole number, or a string"),
    "both bounds of a disruption": (
        having(disruption={"minAvailable": 1, "maxUnavailable": 1}),
        "spec.disruption: minAvailable and maxUnavailable exclude each other: keep one of them",
    ),
    "more than all pods": (
        having(disruption={"minAvailable": "101%"}),
        "minAvailable must be a number of pods or a percentage up to 100%, as in 1 or 25%",
    ),
    "fewer than no pods": (having(disruption={"maxUnavailable": -1}), "maxUnavailable must be a number of pods"),
    "a percentage with a line feed": (having(disruption={"maxUnavailable": "5%\n"}), "maxUnavailable must be a number"),
    "a variable with two values": (
        having(runtime={"env": [{"name": "A", "value": "1", "valueFrom": {}}]}),
        "spec.runtime.env.0: value and valueFrom exclude each other: keep one of them",
    ),
    "a variable that is no name": (having(runtime={"env": [{"name": "1A"}]}), "spec.runtime.env.0.name: '1A'"),
    "a variable given twice": (
        having(runtime={"env": [{"name": "A"}, {"name": "A"}]}),
        "spec.runtime.env: A is given twice: keep one of them",
    ),
    "too many workers": (having(runtime={"workers": 65}), "spec.runtime.workers: 65"),
    "optimizing in an unknown way": (
        optimize(mode="int8"),
        "spec.runtime.optimize.mode: 'int8': Input should be 'off', 'fp32' or 'auto'",
    ),
    "a bare off, which YAML takes for false": (optimize(mode=False), "spec.runtime.optimize.mode: False: Input should"),
    "optimizing as a word": (having(runtime={"optimize": "auto"}), "spec.runtime.optimize: 'auto': must be an object"),
    "a budget that is none": (
        optimize(mode="auto", accuracyBudget="99%", calibration={"uri": "s3://b/samples.npz"}),
        "spec.runtime.optimize: accuracyBudget must be bounds separated by commas, as in top1>=0.998",
    ),
    "a budget from the wrong side": (
        optimize(mode="auto", accuracyBudget="top1<=0.9", calibration={"uri": "s3://b/samples.npz"}),
        "top1, cosine, cosine-worst and overlap with >=, max-abs and relative with <=",
    ),
    "a budget for a metric that is not there": (
        optimize(mode="auto", accuracyBudget="metric>=0.9", calibration={"uri": "s3://b/samples.npz"}),
        "accuracyBudget must be bounds",
    ),
    "a budget and nothing to judge on": (
        optimize(mode="auto", accuracyBudget="top1>=0.9"),
        "spec.runtime.optimize: accuracyBudget needs calibration.uri: accuracy is judged on samples",
    ),
    "a budget where all answers stay equal": (
        optimize(mode="fp32", accuracyBudget="top1>=0.9", calibration={"uri": "s3://b/samples.npz"}),
        "accuracyBudget is for mode: auto; with fp32 all answers stay equal: remove it, or write mode: auto",
    ),
    "calibration from nowhere": (
        optimize(calibration={"uri": "samples.npz"}),
        "spec.runtime.optimize.calibration: uri must begin with one of s3://, gs://, az://, http://, https://, "
        "file://; write for example s3://my-bucket/samples.npz",
    ),
    "a cache that cannot be written": (
        optimize(cacheUri="https://host/optimized"),
        "cacheUri must begin with one of s3://, gs://, az://, file://; write for example s3://my-bucket/optimized",
    ),
    "a relative cache": (optimize(cacheUri="file://./x"), "cacheUri: a file needs an absolute path"),
    "no time to optimize": (optimize(timeoutSeconds=1), "spec.runtime.optimize.timeoutSeconds: 1"),
    "a probe without end": (having(probes={"startup": {"periodSeconds": 86401}}), "spec.probes.startup.periodSeconds"),
    "a template that is no pod": (having(podTemplate={"sepc": {}}), "spec.podTemplate.sepc: unknown field"),
    "metadata that is none": (having(podTemplate={"metadata": "x"}), "spec.podTemplate.metadata: 'x': must be an obj"),
    "two mistakes at once": (having(suspend=1, scaling={"minReplicas": 0}), "; spec.suspend: 1"),
}


@pytest.mark.parametrize(("spec", "sentence"), REFUSED.values(), ids=REFUSED.keys())
def test_a_bad_spec_is_refused_with_the_field_the_value_and_what_is_allowed(spec: Any, sentence: str) -> None:
    assert sentence in refusal(spec)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("a" * 51, "metadata.name must have at most 50 characters"),
        ("9lives", "metadata.name must begin with a letter"),
        ("with.dot", "metadata.name must begin with a letter and hold only lowercase letters, digits and '-'"),
        ("trailing-", "metadata.name must begin with a letter"),
        ("Upper", "metadata.name must begin with a letter"),
        ("feed\n", "metadata.name must begin with a letter"),
    ],
)
def test_a_name_that_its_children_cannot_carry_is_refused(name: str, sentence: str) -> None:
    assert sentence in refusal(services.LEAST, name=name)


def test_the_longest_name_is_accepted() -> None:
    assert services.service(name="a" * 50).metadata.name == "a" * 50


def nodes(node: type[ApiModel]) -> set[type[ApiModel]]:
    found = {node}
    for field in node.model_fields.values():
        for part in getattr(field.annotation, "__args__", (field.annotation,)):
            if isinstance(part, type) and issubclass(part, ApiModel):
                found |= nodes(part)
    return found


RESERVED = [
    (node, alias, mark.instead)
    for node in sorted(nodes(InferenceServiceSpec), key=lambda each: each.__name__)
    for alias, mark in node.reserved_fields().items()
]


@pytest.mark.parametrize(("node", "alias", "instead"), RESERVED, ids=[f"{n.__name__}.{a}" for n, a, _ in RESERVED])
def test_a_reserved_field_is_refused_and_the_sentence_says_what_to_write(
    node: type[ApiModel], alias: str, instead: str
) -> None:
    (rule,) = [rule for rule in node.all_rules() if rule.cel == f"!has(self.{alias})"]
    assert rule.message == f"{alias} is not supported by this version of OpenClaw: {instead}"
    given = node.model_construct(**{name: {} for name, field in node.model_fields.items() if field.alias == alias})
    assert not rule.holds(given)


def test_reserved_groups_have_their_place_in_the_spec() -> None:
    planned = {"gpu", "rollout", "traffic", "placement", "security", "monitoring", "features"}
    assert planned == set(InferenceServiceSpec.reserved_fields())
    assert "gpu is not supported by this version of OpenClaw: request the device" in refusal(having(gpu={"count": 1}))
    assert "scaleToZero is not supported" in refusal(having(scaling={"scaleToZero": {}}))


def test_a_reserved_field_of_null_counts_as_absent() -> None:
    assert services.service(having(gpu=None)).spec.gpu is None


def test_the_spec_is_never_changed_by_validation() -> None:
    spec = having(scaling={"maxReplicas": 3})
    services.service(spec)
    assert spec == having(scaling={"maxReplicas": 3})


def test_a_validated_service_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Scaling().min_replicas = 3  # type: ignore[misc] - that it is refused is what is tested


def test_a_status_of_another_version_of_the_operator_is_no_reason_to_refuse() -> None:
    assert services.service(status={"unheard": ["of"]}).status == {"unheard": ["of"]}
