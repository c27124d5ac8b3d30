"""A pod's container becomes a process with its files, environment and paths; what only a cluster has is refused."""

from pathlib import Path
from typing import Any

import pytest

from openclaw_operator.local.failures import RefusedError
from openclaw_operator.local.launch import Launch, Room, launch
from openclaw_operator.names import Manifest

ROOM = Room(folder=Path("/state/pods/default.one"), cache=Path("/home/me/.cache/openclaw"), marker=Path("/state"))
CONFIGS = {"digits-1": {"data": {"server.json": "{}"}}}


def pod(**container: Any) -> Manifest:
    server = {
        "name": "server",
        "command": ["openclaw"],
        "args": ["serve", "--config=/etc/openclaw/server.json"],
        "env": [{"name": "OPENCLAW_CACHE_DIR", "value": "/var/cache/openclaw"}],
        "volumeMounts": [
            {"name": "config", "mountPath": "/etc/openclaw"},
            {"name": "cache", "mountPath": "/var/cache/openclaw"},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }
    volumes: list[Manifest] = [{"name": "config", "configMap": {"name": "digits-1"}}]
    volumes += [{"name": name, "emptyDir": {}} for name in ("cache", "tmp")]
    metadata = {"name": "one", "namespace": "default", "uid": "uid-1"}
    return {"metadata": metadata, "spec": {"containers": [server | container], "volumes": volumes}}


def launched(manifest: Manifest, **environment: str) -> Launch:
    return launch(manifest, configs=CONFIGS, room=ROOM, environment=environment, port=4711)


def env(*variables: Manifest) -> Manifest:
    return pod(env=[*variables])


def test_the_server_reads_its_configuration_where_it_was_written() -> None:
    plan = launched(pod())
    config = ROOM.folder / "volumes" / "config"
    assert plan.command[-2:] == ("serve", f"--config={config}/server.json")
    assert plan.files == {config / "server.json": "{}"}
    assert config in plan.folders


def test_the_server_listens_on_this_machine_only_and_shares_the_cache() -> None:
    plan = launched(pod())
    assert (plan.env["OPENCLAW_HOST"], plan.env["OPENCLAW_PORT"]) == ("127.0.0.1", "4711")
    assert plan.env["OPENCLAW_CACHE_DIR"] == "/home/me/.cache/openclaw"
    assert plan.env["TMPDIR"] == str(ROOM.folder / "volumes" / "tmp")
    assert plan.env["OPENCLAW_TERMINATION_LOG"] == str(ROOM.termination_log)


def test_little_of_the_users_environment_reaches_the_server() -> None:
    plan = launched(pod(), PATH="/bin", AWS_REGION="here", https_proxy="http://proxy", EDITOR="vi", MODEL_PATH="/x")
    assert {"PATH", "AWS_REGION", "https_proxy"} <= plan.env.keys()
    assert not {"EDITOR", "MODEL_PATH"} & plan.env.keys()


def test_paths_are_replaced_whole_and_the_machines_tmp_is_kept() -> None:
    manifest = pod(args=["/etc/openclaw/a", "/etc/openclaw2", "x/etc/openclaw", "--a=/etc/openclaw", "/tmp/a"])
    config = ROOM.folder / "volumes" / "config"
    placed = launched(manifest).command[-5:]
    assert placed == (f"{config}/a", "/etc/openclaw2", "x/etc/openclaw", f"--a={config}", "/tmp/a")


def test_a_pod_may_ask_for_its_own_name() -> None:
    field = {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    assert launched(env(field)).env["POD"] == "one"


def test_the_users_credentials_stand_for_the_secret() -> None:
    manifest = pod(envFrom=[{"secretRef": {"name": "store"}}])
    assert launched(manifest, AWS_ACCESS_KEY_ID="id").env["AWS_ACCESS_KEY_ID"] == "id"
    with pytest.raises(RefusedError, match="Secret store: local mode has no Secrets: set what it holds in the shell"):
        launched(manifest)


def test_what_only_a_cluster_has_is_refused_by_its_name() -> None:
    secret = {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "store", "key": "k"}}}
    with pytest.raises(RefusedError, match="variable KEY: secretKeyRef does not exist in local mode"):
        launched(env(secret))
    claim = pod()
    claim["spec"]["volumes"][1] = {"name": "cache", "persistentVolumeClaim": {"claimName": "models"}}
    with pytest.raises(RefusedError, match="volume cache: persistentVolumeClaim does not exist in local mode"):
        launched(claim)
    sidecar = pod()
    sidecar["spec"]["containers"].append({"name": "proxy"})
    with pytest.raises(RefusedError, match=r"remove proxy from spec.podTemplate"):
        launched(sidecar)
    with pytest.raises(RefusedError, match="volume config: there is no ConfigMap digits-1"):
        launch(pod(), configs={}, room=ROOM, environment={}, port=1)
    with pytest.raises(RefusedError, match="only secretRef is known"):
        launched(pod(envFrom=[{"configMapRef": {"name": "settings"}}]))


def with_step(**container: Any) -> Manifest:
    """A pod with the step that optimizes, as the operator renders it."""
    whole = pod()
    server = whole["spec"]["containers"][0]
    step = {
        **server,
        "name": "optimize",
        "args": ["prepare", "--config=/etc/openclaw/server.json", "--folder=/var/lib/openclaw", "--cache=file:///c"],
        "volumeMounts": [*server["volumeMounts"], {"name": "prepared", "mountPath": "/var/lib/openclaw"}],
    }
    whole["spec"]["initContainers"] = [step | container]
    whole["spec"]["volumes"].append({"name": "prepared", "emptyDir": {}})
    return whole


def test_the_step_before_the_server_leaves_its_form_in_a_folder_of_the_pod() -> None:
    plan = launch(with_step(), configs=CONFIGS, room=ROOM, environment={}, port=1, step=True)
    volumes = ROOM.folder / "volumes"
    assert plan.command[-4:] == (
        "prepare",
        f"--config={volumes}/config/server.json",
        f"--folder={volumes}/prepared",
        "--cache=file:///c",
    )
    assert volumes / "prepared" in plan.folders
    assert plan.env["OPENCLAW_CACHE_DIR"] == str(ROOM.cache)
    assert launched(with_step()).command[-2] == "serve"


def test_no_other_container_runs_before_the_server() -> None:
    with pytest.raises(RefusedError, match=r"remove fetch from spec.podTemplate"):
        launched(with_step(name="fetch"))
