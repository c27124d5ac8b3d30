"""What the chart and the operator have to agree on: settings, rights, probes, versions."""

import functools
import json
import os
import re
import tomllib
from typing import Any

import pytest
import yaml
from testcluster import MissingToolError, toolchain
from testcluster.paths import REPOSITORY
from testcluster.process import run

from openclaw_operator import names
from openclaw_operator.config import PREFIX, Config

Manifest = dict[str, Any]

CHART = REPOSITORY / "charts/openclaw"

# Local mode alone has services that answer elsewhere than at their Service.
NOT_OF_A_CLUSTER = {"url_template"}

BOUNDED = {
    "workers": ("reconcile", "workers"),
    "resync_seconds": ("reconcile", "resyncSeconds"),
    "overdue_seconds": ("reconcile", "overdueSeconds"),
    "lease_seconds": ("lease", "seconds"),
    "revision_history_limit": ("runtime", "revisionHistoryLimit"),
}


async def rendered(*flags: str) -> list[Manifest]:
    """The objects that `helm install` would create."""
    try:
        helm = (await toolchain.require("helm"))["helm"]
    except MissingToolError as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))
    text = await run([helm, "template", "openclaw", CHART, "--namespace=openclaw-system", *flags])
    return [manifest for manifest in yaml.safe_load_all(text) if manifest]


def one(manifests: list[Manifest], kind: str, name: str = "openclaw") -> Manifest:
    (found,) = [m for m in manifests if m["kind"] == kind and m["metadata"]["name"] == name]
    return found


def operator(manifests: list[Manifest]) -> Manifest:
    (container,) = one(manifests, "Deployment")["spec"]["template"]["spec"]["containers"]
    return dict(container)


def environment(manifests: list[Manifest]) -> dict[str, str]:
    return {env["name"]: env.get("value", "") for env in operator(manifests)["env"]}


def granted(rules: list[Manifest]) -> set[tuple[str, str, str]]:
    """Every (group, resource, verb) that the rules allow."""
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def values_schema() -> Manifest:
    return dict(json.loads((CHART / "values.schema.json").read_text()))


async def test_the_charts_defaults_are_the_operators_defaults() -> None:
    config = Config.from_environment(environment(await rendered()))
    # Machines read the logs of a cluster, people those of a terminal.
    own = Config()
    assert config.model_copy(update={"lease_name": own.lease_name, "log_format": own.log_format}) == own


async def test_every_setting_of_the_operator_can_be_set_through_the_chart() -> None:
    given = {name.removeprefix(PREFIX).lower() for name in environment(await rendered()) if name.startswith(PREFIX)}
    assert set(Config.model_fields) - NOT_OF_A_CLUSTER <= given


@pytest.mark.parametrize(("setting", "path"), BOUNDED.items())
def test_the_chart_refuses_what_the_operator_would_refuse(setting: str, path: tuple[str, str]) -> None:
    group, value = path
    chart = values_schema()["properties"][group]["properties"][value]
    operators = Config.model_json_schema()["properties"][setting]
    assert chart.get("minimum") == operators.get("minimum")
    assert chart.get("maximum") == operators.get("maximum")


async def test_two_releases_in_one_namespace_do_not_share_a_lease() -> None:
    first, second = await rendered(), await rendered("--set=fullnameOverride=second")
    assert environment(first)["OPENCLAW_LEASE_NAME"] == "openclaw"
    (container,) = one(second, "Deployment", "second")["spec"]["template"]["spec"]["containers"]
    assert {"name": "OPENCLAW_LEASE_NAME", "value": "second"} in container["env"]


async def test_the_operator_may_do_to_each_kind_what_it_does_and_no_more() -> None:
    expected = {("openclaw.io", "inferenceservices", verb) for verb in ("get", "list", "watch")}
    expected |= {("openclaw.io", "inferenceservices/status", "update"), ("", "events", "create")}
    expected |= {(names.POD.group, names.POD.plural, verb) for verb in ("list", "watch")}
    expected |= {
        (kind.group, kind.plural, verb)
        for kind in names.OWNED_KINDS
        for verb in ("list", "watch", "create", "patch", "delete")
    }
    assert granted(one(await rendered(), "ClusterRole")["rules"]) == expected


async def test_watching_some_namespaces_takes_the_same_rights_there_and_none_elsewhere() -> None:
    everywhere = one(await rendered(), "ClusterRole")["rules"]
    manifests = await rendered("--set=watchNamespaces={team-a,team-b}", "--set=rbac.aggregate=false")
    roles = [m for m in manifests if m["kind"] == "Role" and m["metadata"]["name"] == "openclaw"]
    assert [(role["metadata"]["namespace"], role["rules"]) for role in roles] == [
        ("team-a", everywhere),
        ("team-b", everywhere),
    ]
    assert not [m for m in manifests if m["kind"].startswith("ClusterRole")]
    assert Config.from_environment(environment(manifests)).watch_namespaces == ("team-a", "team-b")


async def test_no_role_has_a_wildcard_or_reaches_a_secret() -> None:
    manifests = await rendered() + await rendered("--set=watchNamespaces={team-a}")
    roles = [m for m in manifests if m["kind"] in {"Role", "ClusterRole"}]
    rights = set().union(*(granted(role["rules"]) for role in roles))
    assert rights
    assert not [right for right in rights if "*" in "".join(right) or right[1].startswith("secrets")]


async def test_the_network_policy_lets_the_operator_out_to_the_pods_of_services() -> None:
    policy = one(await rendered("--set=networkPolicy.enabled=true"), "NetworkPolicy")
    labels = {names.MANAGED_BY_LABEL: names.FIELD_MANAGER}
    assert {
        "ports": [{"port": names.PORT, "protocol": "TCP"}],
        "to": [{"namespaceSelector": {}, "podSelector": {"matchLabels": labels}}],
    } in policy["spec"]["egress"]


async def test_probes_ask_the_port_that_the_operator_answers_on() -> None:
    container = operator(await rendered("--set=ports.health=9081", "--set=ports.metrics=9082"))
    config = Config.from_environment({env["name"]: env.get("value", "") for env in container["env"]})
    assert {port["name"]: port["containerPort"] for port in container["ports"]} == {
        "health": config.health_port,
        "metrics": config.metrics_port,
    }
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "health"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "health"}


async def test_the_operator_can_be_killed_no_sooner_than_its_lease_could_be_given_back() -> None:
    pod = one(await rendered(), "Deployment")["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] >= Config().lease_seconds


async def test_chart_images_and_package_are_of_one_version() -> None:
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (version, version)
    assert Config().runtime_image == f"openclaw-runtime:{version}"
    assert Config().optimizer_image == f"openclaw-optimizer:{version}"


def test_every_value_is_described_and_nothing_described_is_missing() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def check(schema: Manifest, given: Manifest, path: str) -> None:
        assert set(schema["properties"]) - {"global"} == set(given), f"values.yaml and its schema differ at {path!r}"
        for name, part in schema["properties"].items():
            described = part if "description" in part else values_schema()["definitions"][part["$ref"].split("/")[-1]]
            assert described.get("description"), f"{path}{name} has no description"
            if part.get("additionalProperties") is False:
                check(part, given[name], f"{path}{name}.")

    root = values_schema()
    assert root["additionalProperties"] is False
    check(root, values, "")


def test_the_values_in_the_documentation_exist_and_have_the_default_that_it_tells() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    rows = re.findall(r"^\| `([\w.]+)` \| `(.+?)` \|", (REPOSITORY / "docs/install.md").read_text(), re.MULTILINE)
    assert rows
    for path, default in rows:
        found = functools.reduce(lambda part, name: part[name], path.split("."), values)
        assert yaml.safe_load(default) == found, path
