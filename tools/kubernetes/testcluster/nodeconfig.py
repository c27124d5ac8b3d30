"""Configuration of a node's components: container runtime, pod network, kubelet, kube-proxy."""

import json
from pathlib import Path

import yaml

from testcluster.commandlines import POD_RANGE
from testcluster.images import PAUSE
from testcluster.pki import Pair

NAME = "node0"
"""Name of the node."""
ADDRESS = "10.89.0.1"
"""Address of the node, which exists in its own network namespace only."""
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
"""In the node's own `/run`."""
_NODE_PODS = "10.244.0.0/24"
_CLUSTER_DNS = "10.96.0.10"


def network(var: Path) -> str:
    """Shell script that makes the node's network, and its own `/run` and `/var` (kept in folder `var`)."""
    # The address sits on a bridge, as not every kernel has the `dummy` device. Without a default route
    # neither the API server nor kubelet finds out which address is the node's.
    return f"""\
set -e
ip link set lo up
ip link add {NAME} type bridge
ip address add {ADDRESS}/24 dev {NAME}
ip link set {NAME} up
ip route add default dev {NAME}
echo 1 > /proc/sys/net/ipv4/ip_forward
mkdir -p {var}/lib {var}/log {var}/tmp
ln -s /run {var}/run
mount --bind {var} /var
mount -t tmpfs tmpfs /run
"""


def pod_network() -> str:
    """CNI configuration: each pod is routed to the node, so all traffic passes the node's Service rules.

    On a bridge, answers between two pods of one node would bypass them.
    """
    addresses = {"type": "host-local", "ranges": [[{"subnet": _NODE_PODS}]], "routes": [{"dst": "0.0.0.0/0"}]}
    plugins = [
        {"type": "ptp", "ipMasq": True, "ipam": addresses},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    return json.dumps({"cniVersion": "1.0.0", "name": "pods", "plugins": plugins}, indent=2)


def containerd(pod_network_folder: Path) -> str:
    """Configuration of containerd 1.6 and later."""
    return f"""\
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  # Where the machine lacks CAP_SYS_RESOURCE, runc dies of the negative values that pods ask for.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{pod_network_folder}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
"""


def kubelet(authority: Path, server: Pair, *, cgroup: str, resolver: Path) -> str:
    """Configuration of kubelet, whose pods live below control group `cgroup`."""
    return yaml.safe_dump(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{cgroup}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(authority)},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(server.certificate),
            "tlsPrivateKeyFile": str(server.key),
            "clusterDNS": [_CLUSTER_DNS],
            "clusterDomain": "cluster.local",
            "resolvConf": str(resolver),
            # The disk is the machine's: how full it is, is not this node's to mend.
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {"nodefs.available": "1%", "imagefs.available": "1%", "memory.available": "100Mi"},
            "syncFrequency": "5s",
        }
    )


def kubelet_flags(configuration: Path, kubeconfig: Path) -> list[str]:
    """Flags of kubelet."""
    identity = [f"--hostname-override={NAME}", f"--node-ip={ADDRESS}"]
    return [f"--config={configuration}", f"--kubeconfig={kubeconfig}", *identity]


def kube_proxy_flags(kubeconfig: Path) -> list[str]:
    """Flags of kube-proxy."""
    return [
        f"--kubeconfig={kubeconfig}",
        f"--hostname-override={NAME}",
        f"--cluster-cidr={POD_RANGE}",
        "--proxy-mode=iptables",
        "--conntrack-max-per-core=0",  # the limit is the machine's, and read-only in a namespace
    ]
