"""The node that the other tests here stand on runs real containers, and leaves nothing behind."""

import asyncio
import json
import os
import secrets
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from testcluster import CommandError
from testcluster.images import build_image
from testcluster.node import Node
from testcluster.waiting import until

IMAGE = "localhost/node-test:1"

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      automountServiceAccountToken: false
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: server
        image: localhost/node-test:1
        imagePullPolicy: Never
        readinessProbe: {httpGet: {path: /hostname, port: 8080}, periodSeconds: 1}
        securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
        resources: {limits: {memory: 64Mi}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
"""

DOCKERFILE = """
ARG BASE
FROM ${BASE}
USER 65532
CMD ["python3", "-m", "http.server", "8080", "--directory", "/etc"]
"""


class Web:
    """Two replicas of a web server in a namespace of their own, behind a Service."""

    def __init__(self, node: Node, namespace: str) -> None:
        self._node = node
        self._namespace = namespace

    async def kubectl(self, *arguments: str, input: str | None = None) -> str:
        """Run kubectl in the namespace."""
        return await self._node.plane.kubectl(f"--namespace={self._namespace}", *arguments, input=input, timeout=90)

    async def rolled_out(self) -> None:
        """Wait until every replica is available."""
        await self.kubectl("rollout", "status", "deployment/web", "--timeout=60s")

    async def pods(self) -> list[str]:
        """Names of the pods."""
        return (await self.kubectl("get", "pods", "--output=jsonpath={.items[*].metadata.name}")).split()

    async def address(self) -> str:
        """Cluster address of the Service."""
        return await self.kubectl("get", "service", "web", "--output=jsonpath={.spec.clusterIP}")

    async def answers_to(self, pod: str) -> set[str]:
        """Which pods answer to `pod` through the Service in twenty requests; none, if one is refused."""
        fetch = "import urllib.request as u\nfor _ in range(20): print(u.urlopen(URL, timeout=5).read().decode())"
        script = fetch.replace("URL", repr(f"http://{await self.address()}/hostname"))
        try:
            return set((await self.kubectl("exec", pod, "--", "python3", "-c", script)).split())
        except CommandError:
            return set()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def web(node: Node, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Web]:
    folder = tmp_path_factory.mktemp("image")
    (folder / "Dockerfile").write_text(DOCKERFILE)
    await node.load_image(await build_image(folder / "Dockerfile", IMAGE, context=folder, say=print))
    namespace = f"test-{secrets.token_hex(4)}"
    await node.plane.kubectl("create", "namespace", namespace)
    # The strictest profile there is: what it would not admit, no pod here does.
    await node.plane.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    running = Web(node, namespace)
    await running.kubectl("apply", "--filename=-", input=WEB)
    await running.rolled_out()
    yield running
    await node.plane.kubectl("delete", "namespace", namespace, "--wait=false")


@pytest.mark.timeout(600)  # the first run bootstraps the base image
async def test_a_restricted_pod_has_no_privilege_left(web: Web) -> None:
    pod = (await web.pods())[0]
    status = await web.kubectl("exec", pod, "--", "grep", "-E", "^(Uid|CapEff|Seccomp):", "/proc/1/status")
    facts = {line.split()[0]: line.split()[1] for line in status.splitlines()}
    assert facts == {"Uid:": "65532", "CapEff:": "0000000000000000", "Seccomp:": "2"}
    with pytest.raises(CommandError, match="Read-only file system"):
        await web.kubectl("exec", pod, "--", "touch", "/written")


async def test_every_pod_reaches_every_pod_through_the_service(web: Web) -> None:
    pods = set(await web.pods())
    assert len(pods) == 2
    for pod in pods:

        async def all_answer(pod: str = pod) -> bool:
            return await web.answers_to(pod) == pods

        await until(all_answer, f"both pods answer to {pod} through the Service", timeout=20)


async def test_logs_are_readable_and_a_lost_pod_is_replaced(web: Web) -> None:
    lost = (await web.pods())[0]
    assert "GET /hostname" in await web.kubectl("logs", lost)
    await web.kubectl("delete", "pod", lost, "--grace-period=1")
    await web.rolled_out()
    assert lost not in await web.pods()


async def test_a_service_is_reachable_from_this_machine_through_a_forward(node: Node, web: Web) -> None:
    port = node.forward(await web.address(), 80)

    async def answer() -> str:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /hostname HTTP/1.0\r\n\r\n")
            said = (await reader.read()).decode()
            writer.close()
        except OSError:
            return ""
        return said.rpartition("\r\n\r\n")[2].strip()

    assert await until(answer, "the Service answers", timeout=20) in await web.pods()


@pytest.mark.usefixtures("node")  # so that this is skipped where a node cannot be had
async def test_a_stopped_node_leaves_nothing_behind(tmp_path: Path) -> None:
    before = _traces(tmp_path)
    async with Node(tmp_path, say=print) as other:
        network = (await other.run("readlink", "/proc/self/ns/net")).strip()
        during = _traces(tmp_path, network)
        assert all(len(during[kind]) > len(before[kind]) for kind in ("processes", "control groups"))
    assert _traces(tmp_path, network) == before


def _traces(directory: Path, network: str = "") -> dict[str, set[str]]:
    """What a node of this process in `directory`, with the network namespace `network`, could leave."""
    links = json.loads(subprocess.check_output(["ip", "-json", "link"]))
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    network_files = Path("/run/netns")
    return {
        "processes": {pid.name for pid in Path("/proc").glob("[0-9]*") if _belongs(pid, directory, network)},
        "control groups": {str(group) for group in Path("/sys/fs/cgroup").glob(f"**/openclaw-node-{os.getpid()}-*")},
        "mounts": {mount for mount in mounts if str(directory) in mount},
        "links": {link["ifname"] for link in links},
        "network namespaces": set(os.listdir(network_files)) if network_files.exists() else set(),
    }


def _belongs(process: Path, directory: Path, network: str) -> bool:
    try:
        command = (process / "cmdline").read_bytes()
        return str(directory).encode() in command or os.readlink(process / "ns" / "net") == network
    except OSError:
        return False  # it ended meanwhile
