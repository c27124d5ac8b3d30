"""What is rendered for each kind: the files in `golden/` are the whole truth about it.

After a change that is meant, write them anew with `OPENCLAW_GOLDEN=write pytest tests/unit/test_render.py` and read
the difference: a pod template that changes restarts every pod of everyone whose spec changes next.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from openclaw_operator import names
from openclaw_operator.api.v1alpha1 import InferenceService
from openclaw_operator.config import Config
from openclaw_operator.errors import Terminal
from openclaw_operator.render.account import service_account
from openclaw_operator.render.autoscaler import autoscaled, autoscaler, max_replicas, min_replicas
from openclaw_operator.render.deployment import deployment
from openclaw_operator.render.disruption import disruption_budget
from openclaw_operator.render.revision import Revision, controller_revision, new_revision, spec_hash
from openclaw_operator.render.server_config import config_map
from openclaw_operator.render.service import service_address
from simulation import services
from simulation.services import having

Manifest = dict[str, Any]

GOLDEN = Path(__file__).parent / "golden"
CONFIG = Config(runtime_image="registry.example/openclaw-runtime:0.1.0")


def revision_of(service: InferenceService, config: Config = CONFIG) -> Revision:
    return new_revision(service, config, number=1, default_image=config.runtime_image)


def children(service: InferenceService) -> dict[str, Manifest | None]:
    revision = revision_of(service)
    return {
        "serviceaccount": service_account(service),
        "configmap": config_map(service, revision.server_config),
        "controllerrevision": controller_revision(service, revision),
        "service": service_address(service),
        "horizontalpodautoscaler": autoscaler(service, slot="a"),
        "poddisruptionbudget": disruption_budget(service),
        "deployment": deployment(service, revision, slot="a", replicas=min_replicas(service)),
    }


CASES = {"least": services.LEAST, "full": services.FULL, "optimized": services.OPTIMIZED}
KINDS = sorted(children(services.service()))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES)
def test_a_child_is_rendered_as_its_golden_file_has_it(case: str, kind: str) -> None:
    rendered = children(services.service(CASES[case]))[kind]
    text = yaml.safe_dump(rendered, sort_keys=True, width=120)
    file = GOLDEN / f"{case}.{kind}.yaml"
    if os.environ.get("OPENCLAW_GOLDEN") == "write":
        file.write_text(text)
    assert yaml.safe_load(file.read_text()) == rendered, f"{file.name} differs from what is rendered"
    assert file.read_text() == text


def test_there_is_no_golden_file_that_nothing_renders() -> None:
    assert {file.name for file in GOLDEN.iterdir()} == {f"{case}.{kind}.yaml" for case in CASES for kind in KINDS}


@given(spec=services.specs)
def test_every_child_is_found_by_its_label_and_collected_with_its_owner(spec: Manifest) -> None:
    for child in children(services.service(spec)).values():
        if child is None:
            continue
        assert child["apiVersion"] == names.KINDS[child["kind"]].api_version
        assert names.key_of(child) == names.Key("vision", "digits")
        assert child["metadata"]["labels"][names.MANAGED_BY_LABEL] == "openclaw"
        (owner,) = child["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"]) == ("InferenceService", "digits", "uid-1")
        assert owner["controller"] is True


@given(spec=services.specs)
def test_names_fit_kubernetes_for_the_longest_name_of_a_service(spec: Manifest) -> None:
    for child in children(services.service(spec, name="a" * 50)).values():
        if child:
            assert len(child["metadata"]["name"]) <= 63
            assert all(len(value) <= 63 for value in child["metadata"]["labels"].values())


@given(spec=services.specs)
def test_the_same_service_gives_the_same_template(spec: Manifest) -> None:
    once, again = revision_of(services.service(spec)), revision_of(services.service(spec))
    assert once == again


NOT_FOR_PODS: dict[str, st.SearchStrategy[Any]] = {
    "url_template": st.sampled_from(["http://{name}.{namespace}.svc", "http://localhost:8000/{namespace}/{name}"]),
    "log_format": st.sampled_from(["text", "json"]),
    "revision_history_limit": st.integers(1, 100),
    "watch_namespaces": st.sampled_from([(), ("vision",)]),
    "workers": st.integers(1, 256),
    "resync_seconds": st.floats(10, 1000),
    "overdue_seconds": st.floats(5, 1000),
    "health_port": st.integers(0, 65535),
    "metrics_port": st.integers(0, 65535),
    "lease_name": st.sampled_from(["openclaw-operator", "another"]),
    "lease_namespace": st.sampled_from(["", "openclaw-system"]),
    "lease_seconds": st.integers(3, 300),
}


@given(spec=services.specs, config=st.builds(Config, runtime_image=st.just(CONFIG.runtime_image), **NOT_FOR_PODS))
def test_no_setting_but_those_meant_for_pods_reaches_a_template(spec: Manifest, config: Config) -> None:
    service = services.service(spec)
    assert revision_of(service, config) == revision_of(service)


FOR_PODS = {"runtime_image": "another:1", "image_pull_policy": "Always", "default_cpu": "1", "default_memory": "1Gi"}
FOR_OPTIMIZED_PODS = {"optimizer_image": "another:1", "optimizer_cache_uri": "s3://another/place"}
OPTIMIZING: Manifest = having(runtime={"optimize": {"mode": "fp32"}})


@pytest.mark.parametrize(("setting", "value"), FOR_PODS.items())
def test_these_settings_reach_a_template(setting: str, value: str) -> None:
    changed = CONFIG.model_copy(update={setting: value})
    assert revision_of(services.service(), changed).hash != revision_of(services.service()).hash


@pytest.mark.parametrize(("setting", "value"), FOR_OPTIMIZED_PODS.items())
def test_these_settings_reach_the_template_of_a_service_that_is_optimized_and_no_other(
    setting: str, value: str
) -> None:
    shared = CONFIG.model_copy(update={"optimizer_cache_uri": "s3://models/optimized"})
    changed = shared.model_copy(update={setting: value})
    optimized, plain = services.service(OPTIMIZING), services.service()
    assert revision_of(optimized, changed).hash != revision_of(optimized, shared).hash
    assert revision_of(plain, changed) == revision_of(plain)


def test_every_setting_either_reaches_a_template_or_is_known_not_to() -> None:
    assert set(Config.model_fields) == FOR_PODS.keys() | FOR_OPTIMIZED_PODS.keys() | NOT_FOR_PODS.keys()


@given(spec=services.specs)
def test_the_status_and_metadata_of_a_service_change_no_template(spec: Manifest) -> None:
    plain = services.service(spec)
    busy = services.service(
        spec, generation=7, resourceVersion="99", labels={"a": "b"}, annotations={"c": "d"}, status={"url": "x"}
    )
    assert revision_of(plain) == revision_of(busy)
    assert spec_hash(plain) == spec_hash(busy)


@given(spec=services.specs, scaling=services.scalings, disruption=services.disruptions)
def test_scaling_disruption_and_suspend_restart_no_pod(spec: Manifest, scaling: Manifest, disruption: Manifest) -> None:
    other = {**spec, "scaling": scaling, "disruption": disruption, "suspend": not spec.get("suspend", False)}
    assert revision_of(services.service(spec)) == revision_of(services.service(other))


@given(one=services.specs, other=services.specs)
def test_two_specs_share_a_hash_only_where_they_mean_the_same_pods(one: Manifest, other: Manifest) -> None:
    first, second = services.service(one), services.service(other)
    if spec_hash(first) == spec_hash(second):
        assert revision_of(first).template == revision_of(second).template


def test_writing_a_default_out_changes_no_revision() -> None:
    spelt = {"model": {"uri": "s3://models/digits.onnx", "format": "onnx"}, "suspend": False}
    assert spec_hash(services.service(spelt)) == spec_hash(services.service())


@given(spec=services.specs)
def test_a_revision_survives_being_kept(spec: Manifest) -> None:
    service = services.service(spec)
    revision = revision_of(service)
    assert Revision.from_manifest(controller_revision(service, revision)) == revision


@given(spec=services.specs)
def test_pods_carry_their_revision_and_the_labels_that_select_them(spec: Manifest) -> None:
    service = services.service(spec)
    revision = revision_of(service)
    rendered = deployment(service, revision, slot="a", replicas=None)
    labels = rendered["spec"]["template"]["metadata"]["labels"]
    assert rendered["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert service_address(service)["spec"]["selector"].items() <= labels.items()
    assert labels[names.REVISION_LABEL] == revision.hash
    assert "replicas" not in rendered["spec"]


def test_labels_of_a_user_never_replace_those_that_pods_are_found_by() -> None:
    thief = {"openclaw.io/service": "another", "openclaw.io/slot": "b", "openclaw.io/revision": "x", "mine": "stays"}
    template = revision_of(services.service(having(podTemplate={"metadata": {"labels": thief}}))).template
    labels = template["metadata"]["labels"]
    assert (labels["openclaw.io/service"], labels["openclaw.io/slot"], labels["mine"]) == ("digits", "a", "stays")
    assert labels["openclaw.io/revision"] != "x"


@given(spec=services.specs.filter(lambda spec: "podTemplate" not in spec))
def test_pods_are_restricted_as_the_pod_security_standard_has_it(spec: Manifest) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted"""
    pod = revision_of(services.service(spec)).template["spec"]
    assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC", "hostUsers"}
    assert {next(iter(volume.keys() - {"name"})) for volume in pod["volumes"]} <= {"configMap", "emptyDir"}
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] != 0
    assert not pod["securityContext"].keys() & {"sysctls", "seLinuxOptions", "windowsOptions"}
    optimized = spec.get("runtime", {}).get("optimize", {}).get("mode", "off") != "off"
    assert [each["name"] for each in pod.get("initContainers", [])] == (["optimize"] if optimized else [])
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["readOnlyRootFilesystem"] is True
        assert not context.keys() & {"privileged", "procMount", "runAsUser", "runAsNonRoot", "seLinuxOptions"}
        assert all("hostPort" not in port for port in container.get("ports", []))


def test_services_of_the_namespace_reach_no_pod_as_environment() -> None:
    """Kubernetes would set OPENCLAW_PORT for a Service named openclaw, which the server reads as its own port."""
    assert revision_of(services.service(name="openclaw")).template["spec"]["enableServiceLinks"] is False


def test_pods_have_no_token_and_room_to_drain() -> None:
    pod = revision_of(services.service()).template["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["terminationGracePeriodSeconds"] >= 5 + 45
    assert service_account(services.service())["automountServiceAccountToken"] is False


@pytest.mark.parametrize(
    ("scaling", "bounds"),
    [
        (None, (1, 4)),
        ({"minReplicas": 3}, (3, 4)),
        ({"minReplicas": 9}, (9, 9)),
        ({"maxReplicas": 2}, (1, 2)),
        ({"minReplicas": 2, "maxReplicas": 2}, (2, 2)),
    ],
)
def test_bounds_of_scaling(scaling: Manifest | None, bounds: tuple[int, int]) -> None:
    service = services.service(having(scaling=scaling) if scaling else services.LEAST)
    assert (min_replicas(service), max_replicas(service)) == bounds
    rendered = autoscaler(service, slot="a")
    assert autoscaled(service) is (bounds[0] < bounds[1])
    assert (rendered and (rendered["spec"]["minReplicas"], rendered["spec"]["maxReplicas"])) == (
        bounds if autoscaled(service) else None
    )


@given(spec=services.specs)
def test_a_suspended_service_has_no_autoscaler_and_no_budget(spec: Manifest) -> None:
    service = services.service({**spec, "suspend": True})
    assert autoscaler(service, slot="a") is None
    assert disruption_budget(service) is None


@pytest.mark.parametrize(
    ("given_resources", "expected"),
    [
        (None, {"requests": {"cpu": "500m", "memory": "512Mi"}}),
        ({"requests": {"cpu": 2}}, {"requests": {"cpu": 2, "memory": "512Mi"}}),
        (
            {"limits": {"memory": "256Mi"}},
            {"requests": {"cpu": "500m"}, "limits": {"memory": "256Mi"}},
        ),
        (
            {"limits": {"nvidia.com/gpu": 1}},
            {"requests": {"cpu": "500m", "memory": "512Mi"}, "limits": {"nvidia.com/gpu": 1}},
        ),
    ],
)
def test_defaults_of_resources_never_exceed_a_limit(given_resources: Manifest | None, expected: Manifest) -> None:
    spec = having(resources=given_resources) if given_resources else services.LEAST
    (container,) = revision_of(services.service(spec)).template["spec"]["containers"]
    assert container["resources"] == expected


def test_a_variable_of_the_user_replaces_the_operators_own() -> None:
    env = [{"name": "OPENCLAW_CACHE_DIR", "value": "/elsewhere"}]
    (container,) = revision_of(services.service(having(runtime={"env": env}))).template["spec"]["containers"]
    assert container["env"] == env


@pytest.mark.parametrize(
    ("startup", "seconds", "download"),
    [
        ({}, 600, 540),
        ({"failureThreshold": 1}, 1, 1),
        ({"failureThreshold": 5}, 5, 3),
        ({"failureThreshold": 15}, 15, 10),
        ({"periodSeconds": 2, "failureThreshold": 30}, 60, 54),
        ({"periodSeconds": 86400}, 86400, 77760),
        ({"periodSeconds": 86400, "failureThreshold": 100000}, 86400, 77760),
    ],
)
def test_the_time_to_start_is_what_the_probe_gives_but_at_most_a_day(
    startup: Manifest, seconds: int, download: int
) -> None:
    """More than the runtime takes for a time-out, or than 32 bits hold, would be refused only by then.

    The download has less: whoever is killed by the probe cannot say any more what it waited for.
    """
    service = services.service(having(probes={"startup": startup}))
    revision = revision_of(service)
    assert json.loads(revision.server_config)["model"]["downloadTimeoutSeconds"] == download
    rendered = deployment(service, revision, slot="a", replicas=1)
    assert rendered["spec"]["progressDeadlineSeconds"] == seconds + 60


def step_of(spec: Manifest, config: Config = CONFIG) -> Manifest:
    """The init container that optimizes."""
    *_, step = revision_of(services.service(spec), config).template["spec"]["initContainers"]
    assert step["name"] == "optimize"
    return dict(step)


def test_the_step_has_what_the_server_has_after_the_users_template_and_comes_last() -> None:
    pod = revision_of(services.service(services.OPTIMIZED)).template["spec"]
    first, step = pod["initContainers"]
    (server,) = pod["containers"]
    assert first["name"] == "first"
    for field in ("env", "envFrom", "resources", "securityContext"):
        assert step[field] == server[field]
    mounts = {mount["mountPath"]: mount for mount in server["volumeMounts"]}
    assert {mount["mountPath"]: mount for mount in step["volumeMounts"]} == {
        **mounts,
        "/var/lib/openclaw": {"name": "prepared", "mountPath": "/var/lib/openclaw"},
    }
    assert mounts["/var/lib/openclaw"]["readOnly"] is True
    assert {"name": "OPENCLAW_PREPARED", "value": "/var/lib/openclaw"} in server["env"]


def test_the_users_template_may_change_the_step() -> None:
    changes = {"name": "optimize", "resources": {"limits": {"memory": "8Gi"}}, "env": [{"name": "A", "value": "1"}]}
    spec = {**services.OPTIMIZED, "podTemplate": {"spec": {"initContainers": [changes]}}}
    step = step_of(spec)
    assert step["resources"]["limits"]["memory"] == "8Gi"
    assert step["image"] == CONFIG.optimizer_image
    assert {"name": "A", "value": "1"} in step["env"]
    assert len(revision_of(services.service(spec)).template["spec"]["initContainers"]) == 1


def test_a_place_of_the_operators_is_used_where_the_service_names_none() -> None:
    shared = CONFIG.model_copy(update={"optimizer_cache_uri": "s3://models/shared"})
    assert "--cache=s3://models/shared" in step_of(OPTIMIZING, shared)["args"]
    assert "--cache=s3://models/optimized" in step_of(services.OPTIMIZED, shared)["args"]


def test_without_any_place_to_share_results_it_is_said_what_to_set() -> None:
    with pytest.raises(Terminal) as refused:
        revision_of(services.service(OPTIMIZING))
    assert refused.value.reason == "OptimizeCacheMissing"
    assert "set spec.runtime.optimize.cacheUri, as in s3://my-bucket/optimized" in refused.value.message


def test_switched_off_it_renders_what_is_rendered_without_it() -> None:
    off = having(runtime={"optimize": {"mode": "off", "cacheUri": "s3://models/optimized"}})
    assert revision_of(services.service(off)).template == revision_of(services.service()).template


def test_a_rollout_has_the_time_that_the_step_may_take() -> None:
    def deadline(spec: Manifest) -> int:
        service = services.service(spec)
        shared = CONFIG.model_copy(update={"optimizer_cache_uri": "s3://models/optimized"})
        rendered = deployment(service, revision_of(service, shared), slot="a", replicas=1)
        return int(rendered["spec"]["progressDeadlineSeconds"])

    assert deadline(services.LEAST) == 660
    assert deadline(OPTIMIZING) == 660 + 600 + 540
    assert deadline(having(runtime={"optimize": {"mode": "fp32", "timeoutSeconds": 60}})) == 660 + 60 + 540
