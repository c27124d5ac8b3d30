"""An object store at the node's own address: a real S3 server, and one that hangs."""

import hashlib
import shutil
from pathlib import Path

from testcluster.node import Node
from testcluster.nodeconfig import ADDRESS
from testcluster.process import Component, run
from testcluster.waiting import until

BUCKET = "models"
SECRET = "model-store"
"""Name of the Secret that leads to the store, as in examples/digits/cluster.yaml."""

_PORT = 7070
_SILENT_PORT = 7071
_ACCESS, _KEY = "tester", "tester-secret"

# The kernel takes connections and requests; nobody ever reads them.
_SILENCE = f"import signal, socket; server = socket.create_server(({ADDRESS!r}, {_SILENT_PORT})); signal.pause()"


class Store:
    """An S3 server whose buckets are folders, and beside it a port that takes connections and never answers."""

    def __init__(self, node: Node, *, versitygw: Path) -> None:
        self._node = node
        self._folder = node.directory / "store"
        server: list[str | Path] = [versitygw, f"--port={ADDRESS}:{_PORT}", "posix", self._folder]
        logs = node.directory / "logs"
        self._server = Component("store", server, log=logs / "store.log")
        self._silence = Component("silence", ["python3", "-I", "-c", _SILENCE], log=logs / "silence.log")

    async def start(self) -> None:
        """Start both, inside the node; returns when they take connections."""
        (self._folder / BUCKET).mkdir(parents=True)
        account = {"ROOT_ACCESS_KEY": _ACCESS, "ROOT_SECRET_KEY": _KEY}
        self._server.start(enter=self._node.enter, env=account)
        self._silence.start(enter=self._node.enter)
        await until(self._listens, "the store takes connections", timeout=20)

    async def stop(self) -> None:
        """End both."""
        await self._server.stop()
        await self._silence.stop()

    def put(self, key: str, content: bytes | Path) -> str:
        """Store an object whole, as an upload does; returns its URI."""
        target, part = self._folder / BUCKET / key, self._node.directory / "upload"
        if isinstance(content, Path):
            shutil.copyfile(content, part)
        else:
            part.write_bytes(content)
        part.replace(target)
        return f"s3://{BUCKET}/{key}"

    def keys(self, prefix: str) -> list[str]:
        """The objects below a prefix, but not further down."""
        return sorted(path.name for path in (self._folder / BUCKET / prefix).glob("*") if path.is_file())

    def sha256(self, key: str) -> str:
        """Digest of an object."""
        return hashlib.sha256((self._folder / BUCKET / key).read_bytes()).hexdigest()

    def secret(self, *, name: str = SECRET, key: str = _KEY, hangs: bool = False) -> dict[str, object]:
        """The Secret that leads a service to the store, or to the one that hangs."""
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name},
            "stringData": {
                "AWS_ACCESS_KEY_ID": _ACCESS,
                "AWS_SECRET_ACCESS_KEY": key,
                "AWS_REGION": "us-east-1",
                "AWS_ENDPOINT_URL": f"http://{ADDRESS}:{_SILENT_PORT if hangs else _PORT}",
            },
        }

    async def _listens(self) -> bool:
        self._server.check()
        self._silence.check()
        listening = await run([*self._node.enter, "ss", "--tcp", "--listening", "--numeric", "--no-header"])
        return all(f"{ADDRESS}:{port}" in listening for port in (_PORT, _SILENT_PORT))
