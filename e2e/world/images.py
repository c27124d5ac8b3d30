"""The images of this working tree, on the node."""

from dataclasses import dataclass
from pathlib import Path

from testcluster.images import build_image
from testcluster.node import Node
from testcluster.nodeconfig import CONTAINERD_SOCKET

TAG = "e2e"


@dataclass(frozen=True)
class Image:
    """An image that the node has, under a name that no registry serves."""

    repository: str
    tag: str = TAG

    def __str__(self) -> str:
        return f"{self.repository}:{self.tag}"


RUNTIME = Image("localhost/openclaw-runtime")
OPERATOR = Image("localhost/openclaw-operator")
OPTIMIZER = Image("localhost/openclaw-optimizer")

_TARGETS = {RUNTIME: "runtime", OPERATOR: "operator", OPTIMIZER: "optimizer"}


async def build_and_load(node: Node, repository: Path, *images: Image) -> None:
    """Build images from `images/` and give them to the node."""
    for image in images:
        target = _TARGETS[image]
        archive = await build_image(
            repository / "images" / "Dockerfile", str(image), context=repository, target=target, say=print
        )
        await node.load_image(archive)


async def tag(node: Node, image: Image, *, as_tag: str) -> Image:
    """Give `image` another tag on the node, for good."""
    other = Image(image.repository, as_tag)
    await node.run(*_CTR, "images", "tag", "--force", str(image), str(other))
    return other


async def kill_container(node: Node, container_id: str) -> None:
    """SIGKILL the process of a running container; nothing in it has a say in that."""
    await node.run(*_CTR, "tasks", "kill", "--signal=SIGKILL", container_id.removeprefix("containerd://"))


_CTR = ("ctr", f"--address={CONTAINERD_SOCKET}", "--namespace=k8s.io")
