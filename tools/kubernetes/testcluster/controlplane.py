"""A real Kubernetes control plane for one test run: etcd, API server, controller-manager, scheduler.

Ready in about three seconds. Everything it writes lies in one folder, every port is on loopback and free at
the time, and nothing of it outlives the process that started it.
"""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from testcluster import audit, commandlines, kwok
from testcluster.commandlines import Ports, Settings
from testcluster.components import Components
from testcluster.errors import ClusterError, CommandError
from testcluster.identities import Identities, create_identities
from testcluster.ports import free_ports
from testcluster.process import run
from testcluster.toolchain import CONTROL_PLANE, require


class ControlPlane:
    """A control plane whose state lies in `directory`: `async with ControlPlane(directory) as plane`.

    Args:
        directory: folder for state, logs and kubeconfigs; made if missing, and wholly the plane's own.
        settings: what differs from the usual.
        enter: command prefix that puts a component where the plane shall live (such as `nsenter ...`); its
            port must be carried from there to the same port here.
    """

    def __init__(self, directory: Path, settings: Settings | None = None, *, enter: Sequence[str] = ()) -> None:
        self.directory = directory.absolute()
        self.settings = settings or Settings()
        self.kubeconfig = self.directory / "admin.kubeconfig"
        """Of a cluster administrator."""
        self.audit = audit.AuditLog(self.directory / "audit.log")
        self.components = Components(self.directory / "logs")
        api, etcd, etcd_peer = free_ports(3)
        self.ports = Ports(api=api, etcd=etcd, etcd_peer=etcd_peer)
        self._enter = tuple(enter)
        self._tools: dict[str, Path] = {}
        self._identities: Identities | None = None

    @property
    def server(self) -> str:
        """URL of the API server."""
        return f"https://127.0.0.1:{self.ports.api}"

    @property
    def identities(self) -> Identities:
        """Certificates and keys; an error before the start."""
        if self._identities is None:
            raise ClusterError("the control plane was not started")
        return self._identities

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start everything; returns when the API server is ready and the controllers do their work.

        Raises:
            MissingToolError: a command is not on this machine.
            ComponentError: a component ended, or was not ready within a minute; the end of its log is shown.
        """
        self._tools = await require(*CONTROL_PLANE)
        self.components.logs.mkdir(parents=True, exist_ok=True)
        try:
            await self._prepare()
            await self._start_components()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Kill every component: the state is thrown away, so nothing is worth a slow stop."""
        await self.components.stop()

    async def kubectl(
        self, *arguments: str | Path, input: str | None = None, kubeconfig: Path | None = None, timeout: float = 60
    ) -> str:
        """Run kubectl as administrator, or with `kubeconfig`, and return what it printed.

        Raises:
            CommandError: kubectl ended with a status other than 0; its `error` is what it said.
        """
        flags = [f"--kubeconfig={kubeconfig or self.kubeconfig}", f"--cache-dir={self.directory / 'discovery'}"]
        return await run([self._tools["kubectl"], *flags, *arguments], input=input, timeout=timeout)

    async def user_kubeconfig(self, user: str, *, groups: Sequence[str] = ()) -> Path:
        """Make a kubeconfig for `user`, who may do what RBAC grants to the name or the groups."""
        path = self.directory / f"user-{user}.kubeconfig"
        return await self.identities.kubeconfig(path, self.server, user=user, groups=groups)

    async def service_account_kubeconfig(self, namespace: str, name: str) -> Path:
        """Make a kubeconfig with a token, valid for a day, of an existing service account."""
        token = await self.kubectl("create", "token", name, f"--namespace={namespace}", "--duration=24h")
        path = self.directory / f"serviceaccount-{namespace}-{name}.kubeconfig"
        return self.identities.token_kubeconfig(path, self.server, token=token.strip())

    async def add_fake_nodes(self, count: int) -> None:
        """Have `count` nodes on which pods become Ready without running; returns when the nodes are Ready."""
        if "kwok" not in self.components:
            stages = self._tools["kwok"].with_name("kwok.yaml")
            self._launch("kwok", kwok.flags(self.kubeconfig, stages))
        await self.kubectl("apply", "--server-side", "--filename=-", input=kwok.nodes(count))
        ready = ("wait", "--for=condition=Ready", "node", f"--selector={kwok.SELECTOR}", "--timeout=60s")
        await self.kubectl(*ready, timeout=70)

    async def _prepare(self) -> None:
        (self.directory / "audit-policy.yaml").write_text(audit.POLICY)
        addresses = {"127.0.0.1", commandlines.API_SERVICE_ADDRESS, self.settings.address}
        self._identities = await create_identities(self.directory / "pki", addresses=sorted(addresses))
        await self._identities.kubeconfig(self.kubeconfig, self.server, user="admin", groups=["system:masters"])

    async def _start_components(self) -> None:
        settings, ports, who = self.settings, self.ports, self.identities
        self._launch("etcd", commandlines.etcd(self.directory, ports))
        self._launch("kube-apiserver", commandlines.api_server(self.directory, settings, ports=ports, identities=who))
        await self.components.until("kube-apiserver", self._is_ready)
        self._launch(
            "kube-controller-manager",
            commandlines.controller_manager(settings, kubeconfig=self.kubeconfig, identities=who),
        )
        self._launch("kube-scheduler", commandlines.scheduler(settings, kubeconfig=self.kubeconfig))
        # Without this account no pod is admitted, and the controllers make it among the first things they do.
        await self.components.until("kube-controller-manager", self._has_default_account)

    def _launch(self, name: str, flags: Sequence[str]) -> None:
        self.components.launch(name, [self._tools[name], *flags], enter=self._enter)

    async def _is_ready(self) -> bool:
        return await self._succeeds("get", "--raw=/readyz")

    async def _has_default_account(self) -> bool:
        return await self._succeeds("get", "serviceaccount", "default", "--namespace=default")

    async def _succeeds(self, *arguments: str) -> bool:
        try:
            await self.kubectl(*arguments, timeout=10)
        except CommandError:
            return False
        return True
