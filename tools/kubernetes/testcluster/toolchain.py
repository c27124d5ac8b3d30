"""The commands a test cluster is made of: found where they are, built from pinned Go modules where not.

Looked up in this order: `$KUBEBUILDER_ASSETS`, what was built before, `$PATH` (if of the pinned minor
version). Only what none of them has is built, by `go build` of the module in `modules/`, once per change of
that module's files.
"""

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from testcluster.errors import CommandError, MissingToolError
from testcluster.locking import turn
from testcluster.paths import MODULES, binaries
from testcluster.process import run

_BUILD_TIMEOUT = 1800  # seconds; kube-apiserver takes 220 on two cores


@dataclass(frozen=True, kw_only=True)
class Tool:
    """One command, and the Go module that pins and builds it."""

    name: str
    module: str
    """Folder under `modules/`."""
    package: str
    """Go package of the command."""
    source: str | None
    """Path of the Go module whose version in go.mod is the version of the command; None if it is ours."""
    flags: str = ""
    """Linker flags that tell the command its version; `{version}` and `{minor}` are filled in."""
    asks_version: tuple[str, ...] = ("--version",)
    """Arguments with which the command prints its version."""
    manifests: tuple[str, ...] = ()
    """YAML files of the source module that the command needs, joined into `<name>.yaml` beside it."""

    @property
    def directory(self) -> Path:
        """Folder of the Go module."""
        return MODULES / self.module

    @property
    def version(self) -> str:
        """The version pinned in go.mod, such as `1.35.4`."""
        if self.source is None:
            return "of this tree"
        text = (self.directory / "go.mod").read_text()
        match = re.search(rf"^(?:require )?\s*{re.escape(self.source)} v(\S+)", text, re.MULTILINE)
        if match is None:
            raise MissingToolError(f"{self.directory / 'go.mod'} does not pin {self.source}")
        return match[1]

    @property
    def linker_flags(self) -> str:
        """`-ldflags` of the build."""
        if not self.flags:
            return "-s -w"
        version = self.version
        return "-s -w " + self.flags.format(version=version, minor=version.split(".")[1])

    @property
    def fingerprint(self) -> str:
        """Changes when a rebuild is due."""
        digest = hashlib.sha256(f"{self.package} {self.linker_flags} {self.manifests}".encode())
        for file in sorted(self.directory.iterdir()):
            digest.update(file.read_bytes())
        return digest.hexdigest()


def _kubernetes(name: str, *asks_version: str) -> Tool:
    # Without a version the API server says v0.0.0, and clients refuse to talk to it.
    stamp = "k8s.io/component-base/version"
    return Tool(
        name=name,
        module="kubernetes",
        package=f"k8s.io/kubernetes/cmd/{name}",
        source="k8s.io/kubernetes",
        flags=f"-X {stamp}.gitVersion=v{{version}} -X {stamp}.gitMajor=1 -X {stamp}.gitMinor={{minor}}",
        asks_version=asks_version or ("--version",),
    )


_TOOLS = (
    Tool(name="etcd", module="kubernetes", package="go.etcd.io/etcd/server/v3", source="go.etcd.io/etcd/server/v3"),
    _kubernetes("kube-apiserver"),
    _kubernetes("kube-controller-manager"),
    _kubernetes("kube-scheduler"),
    _kubernetes("kubectl", "version", "--client"),
    _kubernetes("kubelet"),
    _kubernetes("kube-proxy"),
    Tool(
        name="kwok",
        module="kwok",
        package="sigs.k8s.io/kwok/cmd/kwok",
        source="sigs.k8s.io/kwok",
        manifests=(
            "kustomize/stage/node/fast/node-initialize.yaml",
            "kustomize/stage/node/heartbeat-with-lease/node-heartbeat-with-lease.yaml",
            "kustomize/stage/pod/fast/pod-ready.yaml",
            "kustomize/stage/pod/fast/pod-complete.yaml",
            "kustomize/stage/pod/fast/pod-delete.yaml",
        ),
    ),
    Tool(
        name="helm",
        module="helm",
        package="helm.sh/helm/v3/cmd/helm",
        source="helm.sh/helm/v3",
        # Offline (`helm template`, `helm lint`) it believes the cluster to be 1.20 unless told otherwise.
        flags="-X helm.sh/helm/v3/internal/version.version=v{version}"
        " -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor=35"
        " -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=35",
        asks_version=("version", "--short"),
    ),
    Tool(
        name="helm-unittest",
        module="helm-unittest",
        package="github.com/helm-unittest/helm-unittest/cmd/helm-unittest",
        source="github.com/helm-unittest/helm-unittest",
    ),
    Tool(
        name="kubeconform",
        module="kubeconform",
        package="github.com/yannh/kubeconform/cmd/kubeconform",
        source="github.com/yannh/kubeconform",
        flags="-X main.version=v{version}",
        asks_version=("-v",),
    ),
    Tool(
        name="versitygw",
        module="versitygw",
        package="github.com/versity/versitygw/cmd/versitygw",
        source="github.com/versity/versitygw",
        flags="-X main.Version=v{version}",
    ),
    Tool(name="pause", module="pause", package=".", source=None),
)
TOOLS = {tool.name: tool for tool in _TOOLS}
"""Every command that can be asked for, by name."""

CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kwok")
"""What a control plane is made of."""

NODE = ("kubelet", "kube-proxy")
"""What a node needs beside a control plane and the packages of the operating system."""


async def find(name: str) -> Path | None:
    """Return where command `name` is, or None if it has to be built."""
    tool = TOOLS[name]
    # One that comes with manifests is always built here, so that both are of the same version.
    assets = None if tool.manifests else os.environ.get("KUBEBUILDER_ASSETS")
    if assets and (Path(assets) / name).exists():
        return Path(assets) / name
    if _is_fresh(tool):
        return binaries() / name
    on_path = shutil.which(name)
    if on_path and tool.source and not tool.manifests and await _is_of_pinned_minor(tool, on_path):
        return Path(on_path)
    return None


async def require(*names: str) -> dict[str, Path]:
    """Return the path of each command.

    Raises:
        MissingToolError: some are not there; the message names them and the command that builds them.
    """
    found = {name: await find(name) for name in names}
    if missing := [name for name, path in found.items() if path is None]:
        raise MissingToolError(f"not on this machine: {', '.join(missing)}; `python -m testcluster build` builds them")
    return {name: path for name, path in found.items() if path is not None}


async def build(names: Iterable[str], say: Callable[[str], None]) -> dict[str, Path]:
    """Build what is missing of `names`, telling `say` about each; returns the path of every one.

    Safe to run from several processes at once: they take turns, and the later ones find the work done.

    Raises:
        MissingToolError: a build is needed and Go is not there, or a build failed.
    """
    wanted = list(names)
    async with turn(binaries() / ".lock", say):
        for name in wanted:
            if await find(name) is None:
                await _build(TOOLS[name], say)
    return await require(*wanted)


async def _build(tool: Tool, say: Callable[[str], None]) -> None:
    if shutil.which("go") is None:
        raise MissingToolError(f"{tool.name} {tool.version} has to be built: install Go, or put the command on PATH")
    say(f"{tool.name} {tool.version}: building")
    began = time.monotonic()
    target = binaries() / tool.name
    fresh = target.with_name(f"{tool.name}.new")
    command: list[str | Path] = [
        "nice",
        "go",
        "build",
        "-C",
        tool.directory,
        "-trimpath",
        f"-ldflags={tool.linker_flags}",
    ]
    try:
        await run(
            [*command, "-o", fresh, tool.package], env={"CGO_ENABLED": "0", "GOWORK": "off"}, timeout=_BUILD_TIMEOUT
        )
        if tool.manifests:
            await _join_manifests(tool)
    except CommandError as failure:
        raise MissingToolError(f"{tool.name} {tool.version} could not be built: {failure}") from failure
    # A running cluster may hold the old file open: it keeps it, and whoever starts next gets the new one.
    fresh.replace(target)
    _stamp(tool).parent.mkdir(exist_ok=True)
    _stamp(tool).write_text(tool.fingerprint)
    say(f"{tool.name} {tool.version}: built in {time.monotonic() - began:.0f} s")


async def _join_manifests(tool: Tool) -> None:
    listed = await run(["go", "mod", "download", "-json", str(tool.source)], cwd=tool.directory)
    source = Path(json.loads(listed)["Dir"])
    texts = [(source / manifest).read_text() for manifest in tool.manifests]
    (binaries() / f"{tool.name}.yaml").write_text("\n---\n".join(texts))


def _stamp(tool: Tool) -> Path:
    return binaries() / ".stamps" / tool.name


def _is_fresh(tool: Tool) -> bool:
    stamp = _stamp(tool)
    return (binaries() / tool.name).exists() and stamp.exists() and stamp.read_text() == tool.fingerprint


async def _is_of_pinned_minor(tool: Tool, command: str) -> bool:
    try:
        said = await run([command, *tool.asks_version], timeout=20)
    except CommandError:
        return False
    minor = re.escape(".".join(tool.version.split(".")[:2]))
    return re.search(rf"(?<![\d.]){minor}\.\d", said) is not None
