"""Fake nodes: objects that kwok keeps alive, and on which it makes pods Ready without running them."""

from pathlib import Path

import yaml

from testcluster.ports import free_ports

SELECTOR = "type=kwok"
"""Label of every fake node."""


def flags(kubeconfig: Path, stages: Path) -> list[str]:
    """Flags of kwok; `stages` are the manifests that say how nodes and pods move on (it has none built in)."""
    return [
        f"--kubeconfig={kubeconfig}",
        f"--config={stages}",
        "--manage-all-nodes=true",
        "--node-ip=127.0.0.1",
        "--node-lease-duration-seconds=40",
        f"--server-address=127.0.0.1:{free_ports(1)[0]}",
    ]


def nodes(count: int) -> str:
    """Manifests of `count` nodes, named `fake-0` and up, each with room for a thousand pods."""
    size = {"cpu": "256", "memory": "1Ti", "pods": "1000"}
    return yaml.safe_dump_all(
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": f"fake-{index}",
                "labels": {
                    "type": "kwok",
                    "kubernetes.io/hostname": f"fake-{index}",
                    "kubernetes.io/os": "linux",
                    "kubernetes.io/arch": "amd64",
                },
            },
            "status": {"capacity": size, "allocatable": size},
        }
        for index in range(count)
    )
