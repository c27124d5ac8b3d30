"""`openclaw local`: the same InferenceService as on Kubernetes, on this machine."""

import asyncio
import json
import os
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click
import yaml

from openclaw_operator.local import report
from openclaw_operator.local.client import Client
from openclaw_operator.local.documents import DEFAULT_NAMESPACE, read
from openclaw_operator.local.down import down as bring_down
from openclaw_operator.local.failures import LocalError, UpError
from openclaw_operator.local.home import Home
from openclaw_operator.local.output import Output

Result = TypeVar("Result")

# A paragraph that begins with \b is printed as it stands.
_HELP = """Runs InferenceServices on this machine: no cluster, no container engine, no root.

\b
service.yaml:
  apiVersion: openclaw.io/v1alpha1
  kind: InferenceService
  metadata: {name: digits}
  spec:
    model: {uri: file://./digits.onnx}
\b
Then:
  openclaw local up -f service.yaml
  curl http://127.0.0.1:8080/default/digits/v2/models/digits

The operator's own decisions are carried out, with a process for each pod, so what works here works on a cluster.
State lies in ~/.local/state/openclaw/local, or in OPENCLAW_LOCAL_DIR.
"""

_UP_HELP = """Serves what FILEs declare, and rolls a service when its file is saved.

A model's uri may be relative to the file it is written in: file://./digits.onnx

Without --detach everything ends with Ctrl-C. While local mode runs already, the files are added to it.

\b
Examples:
  openclaw local up -f service.yaml
  openclaw local up -f a.yaml -f b.yaml --detach --port 9000
"""

_GET_HELP = """Shows the services, and what is wrong with those that are not Ready.

\b
Examples:
  openclaw local get
  openclaw local get digits -o yaml
"""

_LOGS_HELP = """Shows what the servers of a service have written.

\b
Examples:
  openclaw local logs digits
  openclaw local logs digits -f
"""


@click.group(help=_HELP, context_settings={"help_option_names": ["-h", "--help"]})
def local() -> None:
    """Runs InferenceServices on this machine: no cluster, no container engine, no root."""


@local.command(help=_UP_HELP)
@click.option(
    "-f",
    "--filename",
    "files",
    multiple=True,
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A YAML file with one or more InferenceServices. Can be given several times.",
)
@click.option("-d", "--detach", is_flag=True, help="Return once the services are up; a daemon keeps them running.")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Port of the gateway; 0 takes any free one. [default: 8080]"
)
@click.option("--wait/--no-wait", default=True, help="Whether to wait until the services are Ready. [default: wait]")
@click.option("--timeout", type=click.FloatRange(min=1), default=600.0, show_default=True, help="Seconds to wait.")
def up(files: tuple[Path, ...], detach: bool, *, port: int | None, wait: bool, timeout: float) -> None:
    """Serves what FILEs declare, and rolls a service when its file is saved."""
    absolute = [file.parent.resolve() / file.name for file in files]
    limit = timeout if wait else 0.0
    if not _run(_up(absolute, detach=detach, port=port, timeout=limit)):
        raise click.ClickException(
            "not every service is Ready: correct the file, it is watched; or openclaw local down"
        )


@local.command(help=_GET_HELP)
@click.argument("name", required=False)
@click.option("-n", "--namespace", default=DEFAULT_NAMESPACE, show_default=True, help="Namespace of NAME.")
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", help="Format.")
def get(name: str | None, namespace: str, output: str) -> None:
    """Shows the services, and what is wrong with those that are not Ready."""
    state = _run(_state())
    services = [each for each in state.services if not name or report.key_of(each) == (namespace, name)]
    if name and not services:
        raise click.ClickException(_no_service(name, namespace, [report.key_of(each) for each in state.services]))
    listing: Any = services[0] if name else {"apiVersion": "v1", "kind": "List", "items": services}
    if output == "json":
        click.echo(json.dumps(listing, indent=2))
    elif output == "yaml":
        click.echo(yaml.safe_dump(listing, sort_keys=False), nl=False)
    elif services:
        click.echo(report.table(services, now=datetime.now(UTC)))
    else:
        click.echo("no services: declare one in a file and run openclaw local up -f FILE")
    if state.error:
        click.echo(f"\nnot applied: {state.error}", err=True)


@local.command(help=_LOGS_HELP)
@click.argument("name")
@click.option("-n", "--namespace", default=DEFAULT_NAMESPACE, show_default=True, help="Namespace of NAME.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on.")
def logs(name: str, namespace: str, follow: bool) -> None:
    """Shows what the servers of a service have written."""
    folder = _home().logs(namespace, name)
    if not folder.exists():
        state = _run(_state())
        keys = [report.key_of(each) for each in state.services]
        if (namespace, name) in keys:
            raise click.ClickException(f"no server of {name} was started yet: see openclaw local get {name}")
        raise click.ClickException(_no_service(name, namespace, keys))
    output = Output(folder)
    if follow:
        try:
            _run(_follow(output))
        except KeyboardInterrupt:
            return
    else:
        for line in output.news():
            click.echo(line)


@local.command()
def down() -> None:
    """Ends all services, the gateway and the daemon. No process, port or file is left; models stay cached."""
    _run(bring_down(_home(), _say))


async def _up(files: list[Path], *, detach: bool, port: int | None, timeout: float) -> bool:
    from openclaw_operator.local import up as bringing_up  # the other commands need nothing of the daemon's

    read(files)
    home = _home()
    if await bringing_up.take(home):
        running = home.daemon()
        if running:
            _say(f"local mode runs already (process {running.pid}, port {running.port}): the files are added to it")
        return await bringing_up.apply(home, files, timeout=timeout, say=_say)
    chosen = bringing_up.free_port(port, _say)
    if not detach:
        await bringing_up.acquire(home)
        await bringing_up.foreground(home, files, port=chosen, say=_say)
        return True
    await bringing_up.detached(home, port=chosen, say=_say)
    return await bringing_up.apply(home, files, timeout=timeout, say=_say)


async def _state() -> Any:
    home = _home()
    if home.daemon() is None:
        left = " (its daemon was killed: openclaw local down removes the rest)" if home.is_left else ""
        raise UpError(f"local mode is not running{left}: start it with openclaw local up -f FILE")
    async with Client(home.control) as client:
        return await client.state()


async def _follow(output: Output) -> None:
    async for line in output.follow():
        click.echo(line)


def _home() -> Home:
    try:
        return Home.of_user(os.environ)
    except LocalError as error:
        raise click.ClickException(str(error)) from error


def _run(work: Coroutine[Any, Any, Result]) -> Result:
    try:
        return asyncio.run(work)
    except LocalError as error:
        raise click.ClickException(str(error)) from error


def _no_service(name: str, namespace: str, keys: list[Any]) -> str:
    known = ", ".join(map(report.shown, keys)) or "none"
    return f"there is no service {name} in namespace {namespace}; there are: {known}"


def _say(line: str) -> None:
    click.echo(line)
