"""How a pod's container becomes a process: command, environment and files. Pure."""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openclaw_operator import names
from openclaw_operator.local.failures import RefusedError
from openclaw_operator.names import Manifest

CREDENTIALS = ("AWS_", "AZURE_", "GOOGLE_")
"""Variables of the user's own that object stores are opened with."""
MARKER = "OPENCLAW_LOCAL_MEMBER"
"""Variable by which processes of local mode are found; it holds the runtime folder of the one they belong to."""
_INHERITED = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "PYTHONPATH")
_NETWORK = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")
_TMP = "/tmp"


@dataclass(frozen=True, slots=True)
class Room:
    """The folders that one pod may use.

    Attributes:
        folder: For its files and volumes.
        cache: Model cache, shared by all pods.
        marker: Path that marks the processes of this instance of local mode, in their environment.
    """

    folder: Path
    cache: Path
    marker: Path

    @property
    def termination_log(self) -> Path:
        return self.folder / "termination-log"


@dataclass(frozen=True, slots=True)
class Launch:
    """What to run.

    Attributes:
        command: The program and its arguments.
        env: Its whole environment.
        folders: Folders that must exist.
        files: Files that must exist, with their content.
    """

    command: tuple[str, ...]
    env: Mapping[str, str]
    folders: tuple[Path, ...]
    files: Mapping[Path, str]


def step_of(pod: Manifest) -> dict[str, Any] | None:
    """The init container that optimizes the model; None where there is none."""
    before = pod["spec"].get("initContainers") or ()
    return next((dict(each) for each in before if each["name"] == names.OPTIMIZE), None)


def launch(
    pod: Manifest,
    *,
    configs: Mapping[str, Manifest],
    room: Room,
    environment: Mapping[str, str],
    port: int,
    step: bool = False,
) -> Launch:
    """What runs the pod's container, or the step before it, on this machine.

    Args:
        pod: The pod.
        configs: ConfigMaps of its namespace, by name.
        room: Its folders.
        environment: The environment of the user, of which little is passed on.
        port: Port to listen on.
        step: Whether it is the step that is to run.

    Raises:
        RefusedError: it needs something that exists only in a cluster.
    """
    container = _container(pod, step=step)
    volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes") or []}
    places: dict[str, Path] = {}
    files: dict[Path, str] = {}
    for mount in container.get("volumeMounts") or []:
        place = room.cache if mount["mountPath"] == _cache_dir(container) else room.folder / "volumes" / mount["name"]
        places[mount["mountPath"]] = place
        files |= _content(volumes.get(mount["name"]), place, configs=configs)
    env = {
        **{name: environment[name] for name in environment if _passed_on(name)},
        **_credentials(container, environment),
        **{each["name"]: _placed(_value(each, pod), places) for each in container.get("env") or []},
        "TMPDIR": str(places.get(_TMP, room.folder)),
        "OPENCLAW_HOST": "127.0.0.1",
        "OPENCLAW_PORT": str(port),
        **_grpc(container),
        "OPENCLAW_TERMINATION_LOG": str(room.termination_log),
        MARKER: str(room.marker),
    }
    given = [*(container.get("command") or ["openclaw"]), *(container.get("args") or [])]
    program = [sys.executable, "-P", "-m", "openclaw"] if given[0] == "openclaw" else [given[0]]
    arguments = [_placed(argument, places) for argument in given[1:]]
    return Launch((*program, *arguments), env, (room.folder, *places.values()), files)


def _container(pod: Manifest, *, step: bool) -> dict[str, Any]:
    containers = pod["spec"]["containers"]
    optimizes = step_of(pod)
    before = [each for each in pod["spec"].get("initContainers") or () if each["name"] != names.OPTIMIZE]
    extra = [each["name"] for each in (*before, *containers[1:])]
    if extra:
        raise RefusedError(
            f"local mode runs the container {names.CONTAINER} alone: remove {', '.join(extra)} from spec.podTemplate"
        )
    return optimizes if step and optimizes else dict(containers[0])


def _grpc(container: Mapping[str, Any]) -> dict[str, str]:
    """Any free port: pods of this machine cannot all have the same."""
    asked = any(port.get("name") == names.GRPC_PORT_NAME for port in container.get("ports") or [])
    return {"OPENCLAW_GRPC_PORT": "0"} if asked else {}


def _cache_dir(container: Mapping[str, Any]) -> str | None:
    env = container.get("env") or []
    return next((each.get("value") for each in env if each["name"] == "OPENCLAW_CACHE_DIR"), None)


def _content(volume: Mapping[str, Any] | None, place: Path, *, configs: Mapping[str, Manifest]) -> dict[Path, str]:
    if volume is None or "emptyDir" in volume:
        return {}
    if "configMap" not in volume:
        source = next((field for field in volume if field != "name"), "nothing")
        raise RefusedError(
            f"volume {volume['name']}: {source} does not exist in local mode: use emptyDir, or remove it"
        )
    name = volume["configMap"]["name"]
    if name not in configs:
        raise RefusedError(f"volume {volume['name']}: there is no ConfigMap {name}")
    return {place / key: text for key, text in (configs[name].get("data") or {}).items()}


def _passed_on(name: str) -> bool:
    return name in _INHERITED or name.upper() in _NETWORK


def _credentials(container: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, str]:
    """The user's own credentials; they stand for the Secret that a service names."""
    own = {name: value for name, value in environment.items() if name.startswith(CREDENTIALS)}
    for source in container.get("envFrom") or []:
        name = (source.get("secretRef") or {}).get("name")
        if name is None:
            raise RefusedError(
                "envFrom: only secretRef is known in local mode: put the variables into spec.runtime.env"
            )
        if not own:
            raise RefusedError(
                f"Secret {name}: local mode has no Secrets: set what it holds in the shell, as in AWS_ACCESS_KEY_ID=..."
                " AWS_SECRET_ACCESS_KEY=..., and run `openclaw local up` from there once more"
            )
    return own


def _value(variable: Mapping[str, Any], pod: Manifest) -> str:
    source = variable.get("valueFrom")
    if not source:
        return str(variable.get("value") or "")
    field = (source.get("fieldRef") or {}).get("fieldPath")
    known = {
        "metadata.name": pod["metadata"]["name"],
        "metadata.namespace": pod["metadata"]["namespace"],
        "metadata.uid": pod["metadata"].get("uid", ""),
        "status.podIP": "127.0.0.1",
    }
    if field not in known:
        what = field or next(iter(source))
        raise RefusedError(
            f"variable {variable['name']}: {what} does not exist in local mode: give it a value in spec.runtime.env"
        )
    return str(known[field])


def _placed(text: str, places: Mapping[str, Path]) -> str:
    """`text` with the paths of mounts replaced by where they are on this machine.

    /tmp is the machine's own: a path there is meant as the user wrote it.
    """
    for mount, place in sorted(places.items(), reverse=True):
        if mount != _TMP:
            text = str(place).join(re.split(rf"(?<![\w/.-]){re.escape(mount)}(?![\w.-])", text))
    return text
