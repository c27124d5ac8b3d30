"""Commands that come from the operating system's packages."""

import os
import shutil
from collections.abc import Callable, Mapping

from testcluster.errors import MissingToolError
from testcluster.process import run

NODE = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "/usr/lib/cni/ptp": "containernetworking-plugins",
    "conntrack": "conntrack",
    "iptables": "iptables",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "openssl": "openssl",
}
"""What a node needs: command (or file) -> Debian package."""

IMAGES = {"buildah": "buildah", "debootstrap": "debootstrap"}
"""What building images needs: command -> Debian package."""


async def ensure(commands: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Install what is missing of `commands` where that is possible (root on Debian), telling `say`.

    Raises:
        MissingToolError: something is missing and may not be installed; the message has the command to run.
    """
    packages = sorted({package for command, package in commands.items() if shutil.which(command) is None})
    if not packages:
        return
    wanted = " ".join(packages)
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise MissingToolError(f"not on this machine: {wanted}; as root on Debian: apt-get install {wanted}")
    say(f"installing packages: {wanted}")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    await run(["apt-get", "update", "-qq"], env=quiet, timeout=300)
    await run(["apt-get", "install", "-qq", "--no-install-recommends", *packages], env=quiet, timeout=600)


def require_root(what: str) -> None:
    """Raise MissingToolError unless this process may do what only root may."""
    if os.geteuid() != 0:
        raise MissingToolError(f"{what} needs root: it makes namespaces, mounts and containers")
