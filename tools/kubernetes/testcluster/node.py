"""A whole Kubernetes node: control plane, kubelet, containerd, kube-proxy and pod network, on one machine.

It lives in namespaces of its own: its addresses exist only there, no port of the machine is taken but one on
loopback for the API server, and killing one process ends all of it. Ready in about fifteen seconds.
"""

import asyncio
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from testcluster import cgroups, nodeconfig, packages
from testcluster.commandlines import Settings
from testcluster.components import Components
from testcluster.controlplane import ControlPlane
from testcluster.errors import ClusterError, CommandError
from testcluster.images import pause_image
from testcluster.namespaces import Namespaces
from testcluster.ports import free_ports
from testcluster.process import run
from testcluster.toolchain import CONTROL_PLANE, NODE, require

_CTR = ("ctr", f"--address={nodeconfig.CONTAINERD_SOCKET}", "--namespace=k8s.io")


class Node:
    """A node whose state lies in `directory`: `async with Node(directory, say=print) as node`.

    Args:
        directory: folder for state, logs and kubeconfigs; made if missing, and wholly the node's own.
        say: told what takes a while.
    """

    def __init__(self, directory: Path, *, say: Callable[[str], None]) -> None:
        self.directory = directory.absolute()
        self._say = say
        self._cgroup = cgroups.new_name()
        self._components = Components(self.directory / "logs")
        self._namespaces = Namespaces(self._components.logs)
        self._plane: ControlPlane | None = None

    @property
    def plane(self) -> ControlPlane:
        """The control plane; its kubeconfigs work on this machine and inside the node alike."""
        if self._plane is None:
            raise ClusterError("the node was not started")
        return self._plane

    @property
    def enter(self) -> tuple[str, ...]:
        """Command prefix that runs a command inside the node."""
        return self._namespaces.enter

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start everything; returns when the node is Ready.

        Raises:
            MissingToolError: this machine lacks a command, a package or root.
            ComponentError: a component ended, or was not ready in time; the end of its log is shown.
        """
        packages.require_root("a node")
        await packages.ensure(packages.NODE, self._say)
        tools = await require(*CONTROL_PLANE, *NODE)
        pause = await pause_image(self._say)
        for path in (self.directory, pause, *tools.values()):
            _check_is_visible_inside(path)
        self._components.logs.mkdir(parents=True, exist_ok=True)
        try:
            await self._namespaces.start()
            await self.run("sh", "-c", nodeconfig.network(self.directory / "var"))
            await self._start_runtime()
            await self.load_image(pause)
            await self._start_plane()
            await self._start_kubelet(tools)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End everything: processes, containers, mounts, networks, control groups. Logs stay."""
        await self._namespaces.stop()
        await self._components.stop()
        if self._plane:
            await self._plane.stop()
        await cgroups.remove(self._cgroup)
        # Unpacked images are large, and worth nothing without the node.
        await asyncio.to_thread(shutil.rmtree, self.directory / "var" / "lib", ignore_errors=True)

    async def run(self, *command: str | Path, input: str | None = None, timeout: float = 60) -> str:
        """Run a command inside the node, where pod and Service addresses are reachable."""
        return await self._namespaces.run(*command, input=input, timeout=timeout)

    async def load_image(self, archive: Path) -> None:
        """Make the images of a docker-archive tar available to pods (with `imagePullPolicy` not `Always`)."""
        await load_image(self.enter, archive)

    def forward(self, host: str, port: int) -> int:
        """Make an address inside (of a Service or a pod) reachable; returns the port on this machine's loopback."""
        (free,) = free_ports(1)
        self._namespaces.forward(free, (host, port))
        return free

    async def _start_runtime(self) -> None:
        folder = self.directory / "pod-network"
        folder.mkdir(exist_ok=True)
        (folder / "10-pods.conflist").write_text(nodeconfig.pod_network())
        configuration = self.directory / "containerd.toml"
        configuration.write_text(nodeconfig.containerd(folder))
        self._launch("containerd", "containerd", f"--config={configuration}")

        async def answers() -> bool:
            try:
                await run([*self.enter, *_CTR, "version"], timeout=10)
            except CommandError:
                return False
            return True

        await self._components.until("containerd", answers)

    async def _start_plane(self) -> None:
        settings = Settings(address=nodeconfig.ADDRESS, autoscaler_period=5)
        plane = ControlPlane(self.directory, settings, enter=self.enter)
        self._plane = plane
        self._namespaces.forward(plane.ports.api, ("127.0.0.1", plane.ports.api))
        await plane.start()

    async def _start_kubelet(self, tools: dict[str, Path]) -> None:
        plane, who = self.plane, self.plane.identities
        identity = await who.kubeconfig(
            self.directory / "kubelet.kubeconfig",
            plane.server,
            user=f"system:node:{nodeconfig.NAME}",
            groups=["system:nodes"],
        )
        server = await who.authority.issue("kubelet-server", nodeconfig.NAME, hosts=[f"IP:{nodeconfig.ADDRESS}"])
        resolver, configuration = self.directory / "resolv.conf", self.directory / "kubelet.yaml"
        resolver.touch()  # empty: a pod that asks for the node's own resolver gets none
        configuration.write_text(
            nodeconfig.kubelet(who.authority_certificate, server, cgroup=self._cgroup, resolver=resolver)
        )
        await cgroups.remove_abandoned()
        cgroups.create(self._cgroup)
        self._launch("kubelet", tools["kubelet"], *nodeconfig.kubelet_flags(configuration, identity))
        proxy = await plane.user_kubeconfig("system:kube-proxy")
        self._launch("kube-proxy", tools["kube-proxy"], *nodeconfig.kube_proxy_flags(proxy))
        await self._components.until("kubelet", self._is_ready)

    async def _is_ready(self) -> bool:
        query = 'jsonpath={.status.conditions[?(@.type=="Ready")].status}'
        try:
            return await self.plane.kubectl("get", "node", nodeconfig.NAME, f"--output={query}") == "True"
        except CommandError:
            return False

    def _launch(self, name: str, *command: str | Path) -> None:
        self._components.launch(name, command, enter=self.enter)


async def load_image(enter: Sequence[str], archive: Path) -> None:
    """Import a docker-archive tar into the node that the command prefix `enter` leads to."""
    _check_is_visible_inside(archive)
    await run([*enter, *_CTR, "images", "import", archive], timeout=300)


def _check_is_visible_inside(path: Path) -> None:
    for own in ("/var", "/run"):
        if path.resolve().is_relative_to(own):
            raise ClusterError(f"{path} is not visible to the node, which has a {own} of its own; use another folder")
