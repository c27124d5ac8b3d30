"""The command lines of the control plane's components: which flag, and why."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from testcluster.identities import FRONT_PROXY, Identities

SERVICE_RANGE = "10.96.0.0/16"
"""Addresses of Services."""
API_SERVICE_ADDRESS = "10.96.0.1"
"""The API server's own Service: the first address of the range."""
POD_RANGE = "10.244.0.0/16"
"""Addresses of pods."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What may differ between control planes."""

    client_qps: int | None = 2000
    """Requests a second (and burst) that controller-manager and scheduler may send; None leaves them their
    defaults of 20 and 50, which cost four seconds at the start and are then what a large run measures."""
    autoscaler_period: float | None = None
    """Seconds between two looks of the HorizontalPodAutoscaler controller; its default is 15."""
    address: str = "127.0.0.1"
    """Address on which pods and nodes reach the API server; it listens on loopback too."""
    api_server_flags: Sequence[str] = ()
    """Further flags of kube-apiserver; they come last, so they win."""
    controller_manager_flags: Sequence[str] = ()
    """Further flags of kube-controller-manager; they come last, so they win."""


@dataclass(frozen=True, kw_only=True)
class Ports:
    """TCP ports of a control plane."""

    api: int
    etcd: int
    etcd_peer: int


def etcd(directory: Path, ports: Ports) -> list[str]:
    """Flags of etcd: one member that never waits for the disk, as its data need not survive."""
    clients, peers = f"http://127.0.0.1:{ports.etcd}", f"http://127.0.0.1:{ports.etcd_peer}"
    return [
        f"--data-dir={directory / 'etcd'}",
        f"--listen-client-urls={clients}",
        f"--advertise-client-urls={clients}",
        f"--listen-peer-urls={peers}",
        f"--initial-advertise-peer-urls={peers}",
        f"--initial-cluster=default={peers}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def api_server(directory: Path, settings: Settings, *, ports: Ports, identities: Identities) -> list[str]:
    """Flags of kube-apiserver: RBAC as in production, every request in the audit log."""
    who = identities
    on_loopback = settings.address.startswith("127.")
    return [
        f"--etcd-servers=http://127.0.0.1:{ports.etcd}",
        f"--bind-address={'127.0.0.1' if on_loopback else '0.0.0.0'}",
        f"--advertise-address={settings.address}",
        # Loopback may not stand in the Endpoints of the Service `kubernetes`.
        *(["--endpoint-reconciler-type=none"] if on_loopback else []),
        f"--secure-port={ports.api}",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        "--allow-privileged=true",
        "--authorization-mode=Node,RBAC",
        f"--client-ca-file={who.authority_certificate}",
        f"--tls-cert-file={who.server.certificate}",
        f"--tls-private-key-file={who.server.key}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={who.token_public_key}",
        f"--service-account-signing-key-file={who.token_key}",
        f"--kubelet-client-certificate={who.server.certificate}",
        f"--kubelet-client-key={who.server.key}",
        f"--kubelet-certificate-authority={who.authority_certificate}",
        "--kubelet-preferred-address-types=InternalIP",  # node names are in no DNS
        *_aggregation(who),
        f"--audit-policy-file={directory / 'audit-policy.yaml'}",
        f"--audit-log-path={directory / 'audit.log'}",
        *settings.api_server_flags,
    ]


def _aggregation(who: Identities) -> list[str]:
    """What the aggregated APIs, such as metrics, need."""
    return [
        f"--requestheader-client-ca-file={who.front_proxy_authority.pair.certificate}",
        f"--requestheader-allowed-names={FRONT_PROXY}",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={who.front_proxy.certificate}",
        f"--proxy-client-key-file={who.front_proxy.key}",
        "--enable-aggregator-routing=true",
    ]


def controller_manager(settings: Settings, *, kubeconfig: Path, identities: Identities) -> list[str]:
    """Flags of kube-controller-manager."""
    period = settings.autoscaler_period
    return [
        f"--kubeconfig={kubeconfig}",
        "--leader-elect=false",
        "--secure-port=0",
        "--use-service-account-credentials=true",
        f"--root-ca-file={identities.authority_certificate}",
        f"--service-account-private-key-file={identities.token_key}",
        "--allocate-node-cidrs=true",
        f"--cluster-cidr={POD_RANGE}",
        *([f"--horizontal-pod-autoscaler-sync-period={period}s"] if period else []),
        *_client_rate(settings),
        *settings.controller_manager_flags,
    ]


def scheduler(settings: Settings, *, kubeconfig: Path) -> list[str]:
    """Flags of kube-scheduler."""
    return [f"--kubeconfig={kubeconfig}", "--leader-elect=false", "--secure-port=0", *_client_rate(settings)]


def _client_rate(settings: Settings) -> list[str]:
    rate = settings.client_qps
    return [f"--kube-api-qps={rate}", f"--kube-api-burst={rate}"] if rate else []
