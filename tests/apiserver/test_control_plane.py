"""The control plane that the other tests here stand on is a real one, and leaves nothing behind."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest
from testcluster import CommandError, ComponentError, ControlPlane, Settings
from testcluster.toolchain import TOOLS
from testcluster.waiting import until

VIEWER = """
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: viewer}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: viola}]
"""

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: many}
spec:
  replicas: 20
  selector: {matchLabels: {app: many}}
  template:
    metadata: {labels: {app: many}}
    spec: {containers: [{name: server, image: none.invalid/none}]}
"""


async def test_the_server_is_of_the_pinned_minor_version(control_plane: ControlPlane) -> None:
    said = json.loads(await control_plane.kubectl("get", "--raw=/version"))
    pinned = TOOLS["kube-apiserver"].version.split(".")
    assert [said["major"], said["minor"]] == pinned[:2]


async def test_a_user_may_do_what_rbac_grants_and_nothing_else(control_plane: ControlPlane, namespace: str) -> None:
    viola = await control_plane.user_kubeconfig("viola")
    in_namespace = f"--namespace={namespace}"
    with pytest.raises(CommandError, match=r'(?s)Forbidden.*"viola" cannot list resource "pods"'):
        await control_plane.kubectl("get", "pods", in_namespace, kubeconfig=viola)

    await control_plane.kubectl("apply", in_namespace, "--filename=-", input=VIEWER)

    async def may_list() -> bool:
        answer = await control_plane.kubectl("auth", "can-i", "--list", in_namespace, kubeconfig=viola)
        return "pods" in answer

    await until(may_list, "the role binding is in force", timeout=10)
    await control_plane.kubectl("get", "pods", in_namespace, kubeconfig=viola)
    with pytest.raises(CommandError, match='cannot create resource "configmaps"'):
        await control_plane.kubectl("create", "configmap", "x", in_namespace, kubeconfig=viola)


async def test_a_service_account_speaks_under_its_own_name(control_plane: ControlPlane, namespace: str) -> None:
    await control_plane.kubectl("create", "serviceaccount", "robot", f"--namespace={namespace}")
    robot = await control_plane.service_account_kubeconfig(namespace, "robot")
    said = await control_plane.kubectl("auth", "whoami", "--output=json", kubeconfig=robot)
    assert json.loads(said)["status"]["userInfo"]["username"] == f"system:serviceaccount:{namespace}:robot"


async def test_the_audit_log_counts_the_writes_of_a_user(control_plane: ControlPlane, namespace: str) -> None:
    writer = await control_plane.user_kubeconfig("wanda", groups=["system:masters"])
    in_namespace = f"--namespace={namespace}"
    mark = control_plane.audit.mark()
    await control_plane.kubectl("create", "configmap", "x", in_namespace, kubeconfig=writer)
    await control_plane.kubectl("get", "configmap", "x", in_namespace, kubeconfig=writer)
    await control_plane.kubectl("create", "configmap", "of-another", in_namespace)
    await control_plane.kubectl("delete", "configmap", "x", in_namespace, "--wait=false", kubeconfig=writer)

    writes = control_plane.audit.writes(since=mark, user="wanda")
    assert [(write.verb, write.resource, write.namespace, write.status) for write in writes] == [
        ("create", "configmaps", namespace, 201),
        ("delete", "configmaps", namespace, 200),
    ]
    assert not control_plane.audit.writes(since=control_plane.audit.mark(), user="wanda")


@pytest.mark.usefixtures("fake_nodes")
async def test_pods_become_ready_on_fake_nodes(control_plane: ControlPlane, namespace: str) -> None:
    in_namespace = f"--namespace={namespace}"
    await control_plane.kubectl("apply", in_namespace, "--filename=-", input=DEPLOYMENT)
    await control_plane.kubectl("rollout", "status", "deployment/many", in_namespace, "--timeout=50s")
    ready = await control_plane.kubectl("get", "deployment/many", in_namespace, "-o=jsonpath={.status.readyReplicas}")
    assert ready == "20"


async def test_a_component_that_cannot_start_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    plane = ControlPlane(tmp_path, Settings(api_server_flags=["--no-such-flag"]))
    with pytest.raises(ComponentError, match=r"(?s)kube-apiserver ended.*unknown flag: --no-such-flag"):
        await plane.start()
    assert not any(component.alive for component in plane.components)


@pytest.mark.usefixtures("control_plane")  # so that this is skipped where the tools are missing
async def test_nothing_outlives_a_killed_parent(tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, tmp_path, env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert parent.stdout is not None
    pids = [int(pid) for pid in (await parent.stdout.readline()).split()]
    assert len(pids) == 4
    parent.send_signal(signal.SIGKILL)
    await parent.wait()

    async def all_gone() -> bool:
        return not any(map(_runs, pids))

    await until(all_gone, "every component is gone", timeout=10)


def _runs(pid: int) -> bool:
    """One that has ended runs no more, even if the machine's init has not collected it yet."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


PARENT = """
import asyncio, pathlib, sys
from testcluster import ControlPlane

async def main():
    async with ControlPlane(pathlib.Path(sys.argv[1])) as plane:
        print(*(component.pid for component in plane.components), flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""
