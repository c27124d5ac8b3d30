"""The CustomResourceDefinition on a real API server: accepted whole, and it refuses with a sentence."""

import copy
import json
from typing import Any

import pytest
from testcluster import CommandError, ControlPlane

from openclaw_operator.api.v1alpha1 import InferenceService
from openclaw_operator.errors import Terminal
from support import services

DEFINITION = "inferenceservices.openclaw.io"
NAMESPACE = "default"
"""Of what is refused, and so needs none of its own."""

# Each: what is wrong, the spec that says it, and what the sentence must tell.
REFUSED: list[Any] = [
    pytest.param({}, "model", id="no model"),
    pytest.param({"model": {}}, "uri", id="a model without a uri"),
    pytest.param({"model": {"uri": "ftp://host/m.onnx"}}, "uri must begin with one of s3://", id="an unknown scheme"),
    pytest.param({"model": {"uri": "model.onnx"}}, "write for example s3://", id="no scheme"),
    pytest.param({"model": {"uri": "file://./m.onnx"}}, "local mode only", id="a relative file"),
    pytest.param({"model": {"uri": "s3://b/k", "sha256": "abc"}}, "sha256", id="half a digest"),
    pytest.param({"model": {"uri": "s3://b/k", "format": "pickle"}}, "onnx", id="an unknown format"),
    pytest.param({"model": {"uri": "s3://b/k", "precision": "int8"}}, "precision is not supported", id="precision"),
    pytest.param({"scaling": {"minReplicas": 5, "maxReplicas": 2}}, "raise maxReplicas", id="min over max"),
    pytest.param({"scaling": {"minReplicas": 0}}, "minReplicas", id="no replicas"),
    pytest.param({"scaling": {"maxReplicas": 0}}, "maxReplicas", id="at most none"),
    pytest.param({"scaling": {"scaleToZero": {}}}, "set suspend", id="scale to zero"),
    pytest.param(
        {"disruption": {"minAvailable": 1, "maxUnavailable": 1}}, "keep one of them", id="two budgets at once"
    ),
    pytest.param({"disruption": {"maxUnavailable": "many"}}, "as in 1 or 25%", id="a budget of words"),
    pytest.param({"disruption": {"minAvailable": "101%"}}, "up to 100%", id="more than all"),
    pytest.param(
        {"runtime": {"env": [{"name": "A", "value": "1", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}]}},
        "exclude each other",
        id="a value from two places",
    ),
    pytest.param({"runtime": {"workers": 0}}, "workers", id="no workers"),
    pytest.param({"runtime": {"optimize": "auto"}}, "optimize", id="optimizing as a word"),
    pytest.param({"runtime": {"optimize": {"mode": "int8"}}}, "fp32", id="optimizing in an unknown way"),
    pytest.param({"runtime": {"optimize": {"mode": False}}}, "mode", id="a bare off, which YAML takes for false"),
    pytest.param(
        {"runtime": {"optimize": {"mode": "auto", "accuracyBudget": "99%", "calibration": {"uri": "s3://b/k"}}}},
        "accuracyBudget must be bounds separated by commas",
        id="a budget that is none",
    ),
    pytest.param(
        {"runtime": {"optimize": {"mode": "auto", "accuracyBudget": "top1>=0.9"}}},
        "needs calibration.uri",
        id="a budget and nothing to judge on",
    ),
    pytest.param(
        {"runtime": {"optimize": {"mode": "fp32", "accuracyBudget": "top1>=0.9", "calibration": {"uri": "s3://b/k"}}}},
        "accuracyBudget is for mode: auto",
        id="a budget where all answers stay equal",
    ),
    pytest.param(
        {"runtime": {"optimize": {"mode": "fp32", "cacheUri": "https://host/x"}}},
        "cacheUri must begin with one of s3://",
        id="a cache that cannot be written",
    ),
    pytest.param(
        {"runtime": {"optimize": {"calibration": {"uri": "samples.npz"}}}},
        "s3://my-bucket/samples.npz",
        id="calibration from nowhere",
    ),
    pytest.param(
        {"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "500m"}}},
        "requests must not exceed limits",
        id="more asked than allowed",
    ),
    pytest.param({"resources": {"requests": {"memory": "lots"}}}, "memory", id="a quantity of words"),
    pytest.param({"gpu": {"count": 1}}, "nvidia.com/gpu", id="gpu"),
    pytest.param({"rollout": {"strategy": "Canary"}}, "rolling updates", id="rollout"),
    pytest.param({"traffic": {}}, "traffic is not supported", id="traffic"),
    pytest.param({"modle": {}}, "modle", id="a misspelt group"),
    pytest.param({"model": {"uri": "s3://b/k", "url": "s3://b/k"}}, "url", id="a misspelt field"),
]

ACCEPTED: list[Any] = [
    pytest.param({}, id="the least"),
    pytest.param({"scaling": {"minReplicas": 2, "maxReplicas": 2}}, id="a fixed size"),
    pytest.param({"scaling": {"minReplicas": 3}}, id="a floor"),
    pytest.param({"disruption": {"maxUnavailable": "25%"}}, id="a budget in percent"),
    pytest.param({"disruption": {"minAvailable": 1}}, id="a budget in pods"),
    pytest.param({"resources": {"requests": {"cpu": 1}, "limits": {"cpu": "1000m", "memory": "1Gi"}}}, id="quantities"),
    pytest.param({"podTemplate": {"spec": {"nodeSelector": {"disk": "fast"}, "anything": 1}}}, id="a pod template"),
    pytest.param({"suspend": True}, id="suspended"),
    pytest.param(
        {
            "runtime": {
                "optimize": {
                    "mode": "auto",
                    "calibration": {"uri": "s3://b/samples.npz"},
                    "accuracyBudget": "cosine >= 0.99, cosine-worst>=.98,relative<=1e-3",
                    "cacheUri": "s3://b/optimized",
                    "timeoutSeconds": 60,
                }
            }
        },
        id="optimized",
    ),
    pytest.param({"runtime": {"optimize": {}}}, id="optimized by default, which is not at all"),
]


def _spec(overrides: dict[str, Any]) -> dict[str, Any]:
    if not overrides:
        return copy.deepcopy(services.LEAST)
    return {**copy.deepcopy(services.LEAST), **overrides}


def _refused_spec(overrides: dict[str, Any]) -> dict[str, Any]:
    return _spec(overrides) if overrides else {}


@pytest.mark.usefixtures("definition")
class TestDefinition:
    async def test_it_is_accepted_without_a_warning_and_is_structural(self, control_plane: ControlPlane) -> None:
        said = json.loads(await control_plane.kubectl("get", "crd", DEFINITION, "--output=json"))
        conditions = {each["type"]: each["status"] for each in said["status"]["conditions"]}
        assert conditions["Established"] == "True"
        assert conditions["NamesAccepted"] == "True"
        assert "NonStructural" not in conditions

    async def test_its_names_and_columns_are_as_documented(self, control_plane: ControlPlane, namespace: str) -> None:
        await services.apply(control_plane, namespace, services.manifest("digits"))
        table = await control_plane.kubectl("get", "claw", "--namespace", namespace)
        assert table.split("\n")[0].split() == [
            "NAME", "READY", "REASON", "URL", "REPLICAS", "TRAFFIC", "MODEL", "AGE",
        ]  # fmt: skip
        assert "digits" in await control_plane.kubectl("get", "openclaw", "--namespace", namespace)

    async def test_every_field_is_described(self, control_plane: ControlPlane) -> None:
        said = await control_plane.kubectl("explain", "inferenceservice.spec", "--recursive=false")
        assert "<no description>" not in said
        assert "What each pod asks of its node" in said

    async def test_defaults_are_filled_in_and_nothing_else(self, control_plane: ControlPlane, namespace: str) -> None:
        await services.apply(control_plane, namespace, services.manifest("defaults"))
        stored = await services.get(control_plane, namespace, "claw", "defaults")
        assert stored["spec"] == {"model": {"uri": services.LEAST["model"]["uri"], "format": "onnx"}, "suspend": False}

    async def test_kubectl_scale_sets_the_least_replicas(self, control_plane: ControlPlane, namespace: str) -> None:
        await services.apply(control_plane, namespace, services.manifest("scaled", _spec({"scaling": {}})))
        await control_plane.kubectl("scale", "claw/scaled", "--replicas=3", "--namespace", namespace)
        stored = await services.get(control_plane, namespace, "claw", "scaled")
        assert stored["spec"]["scaling"] == {"minReplicas": 3}

    @pytest.mark.parametrize(("overrides", "sentence"), REFUSED)
    async def test_what_is_wrong_is_refused_with_what_to_write_instead(
        self, control_plane: ControlPlane, overrides: dict[str, Any], sentence: str
    ) -> None:
        with pytest.raises(CommandError) as refusal:
            await services.apply(control_plane, NAMESPACE, services.manifest("bad", _refused_spec(overrides)))
        assert sentence in refusal.value.error

    @pytest.mark.parametrize(("overrides", "sentence"), REFUSED)
    def test_the_operator_refuses_the_same(self, overrides: dict[str, Any], sentence: str) -> None:
        with pytest.raises(Terminal) as refusal:
            InferenceService.parse(services.manifest("bad", _refused_spec(overrides)))
        assert refusal.value.reason == "InvalidSpec"

    @pytest.mark.parametrize("overrides", ACCEPTED)
    async def test_what_is_right_is_accepted_by_both(
        self, control_plane: ControlPlane, namespace: str, overrides: dict[str, Any]
    ) -> None:
        good = services.manifest("good", _spec(overrides))
        await services.apply(control_plane, namespace, good)
        stored = await services.get(control_plane, namespace, "claw", "good")
        InferenceService.parse(stored)

    @pytest.mark.parametrize("name", ["a" * 60, "1digits", "di.gits"])
    async def test_a_name_that_cannot_name_a_service_is_refused(self, control_plane: ControlPlane, name: str) -> None:
        with pytest.raises(CommandError, match=r"metadata\.name must"):
            await services.apply(control_plane, NAMESPACE, services.manifest(name))

    async def test_a_reserved_group_is_refused_even_without_strict_validation(
        self, control_plane: ControlPlane
    ) -> None:
        gpu = json.dumps(services.manifest("gpu", _spec({"gpu": {"count": 1}})))
        with pytest.raises(CommandError, match="gpu is not supported"):
            await control_plane.kubectl(
                "apply", "--validate=ignore", "--namespace", NAMESPACE, "--filename=-", input=gpu
            )
