"""The command line: build the tools and the images, start and stop a cluster by hand."""

import asyncio
import os
from pathlib import Path

import click

from testcluster import images, supervisor, toolchain
from testcluster.errors import ClusterError
from testcluster.node import load_image
from testcluster.paths import cache
from testcluster.supervisor import Cluster


def _say(line: str) -> None:
    click.echo(line, err=True)


class _Commands(click.Group):
    """Shows our own errors as one sentence instead of a traceback."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ClusterError as error:
            raise click.ClickException(str(error)) from error


_directory = click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False, resolve_path=True),
    default=lambda: cache() / "cluster",
    help="Where the cluster keeps its state; one cluster per folder.  [default: .cache/cluster]",
)
_node = click.option("--node", is_flag=True, help="A whole node that runs containers (needs root), not just its API.")
_fake_nodes = click.option(
    "--fake-nodes", type=click.IntRange(min=0), default=0, help="Add so many nodes that only pretend to run pods."
)


@click.group(cls=_Commands)
def main() -> None:
    """Real Kubernetes for tests, without Docker."""


@main.command()
@click.argument("names", nargs=-1, type=click.Choice(sorted(toolchain.TOOLS)))
def build(names: tuple[str, ...]) -> None:
    """Build the tools NAMES (all of them, if none is named) that this machine lacks; print where each is."""
    for name, path in asyncio.run(toolchain.build(names or toolchain.TOOLS, _say)).items():
        click.echo(f"{name}\t{path}")


@main.command()
@click.argument("name", type=click.Choice(sorted(toolchain.TOOLS)))
def which(name: str) -> None:
    """Print where the tool NAME is."""
    click.echo(asyncio.run(toolchain.require(name))[name])


@main.command()
@_directory
@_node
@_fake_nodes
def up(directory: Path, node: bool, fake_nodes: int) -> None:
    """Start a cluster in the background; print the line that points kubectl at it."""

    async def start() -> Cluster:
        await toolchain.build([*toolchain.CONTROL_PLANE, *(toolchain.NODE if node else ())], _say)
        return await supervisor.up(directory, node=node, fake_nodes=fake_nodes, say=_say)

    click.echo(f"export KUBECONFIG={asyncio.run(start()).kubeconfig}")


@main.command()
@_directory
def down(directory: Path) -> None:
    """End the cluster and remove its state."""
    _say("down" if asyncio.run(supervisor.down(directory)) else "there was no cluster")


@main.command()
@_directory
@_node
@_fake_nodes
def run(directory: Path, node: bool, fake_nodes: int) -> None:
    """Hold a cluster in the foreground until interrupted."""
    asyncio.run(supervisor.run(directory, node=node, fake_nodes=fake_nodes, say=_say))


@main.command(context_settings={"ignore_unknown_options": True})
@_directory
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def enter(directory: Path, command: tuple[str, ...]) -> None:
    """Run COMMAND inside the node, where pods and Services have their addresses."""
    prefix = _running_node(directory).enter
    os.execvp(prefix[0], [*prefix, *command])


@main.command("load-image")
@_directory
@click.argument("archive", type=click.Path(path_type=Path, exists=True, dir_okay=False, resolve_path=True))
def load(directory: Path, archive: Path) -> None:
    """Make the images of a docker-archive tar available to the node's pods."""
    asyncio.run(load_image(_running_node(directory).enter, archive))


@main.command("build-image")
@click.argument("dockerfile", type=click.Path(path_type=Path, exists=True, dir_okay=False, resolve_path=True))
@click.argument("tag")
@click.option(
    "--context", type=click.Path(path_type=Path, exists=True, file_okay=False, resolve_path=True), default="."
)
@click.option("--target", help="Stage to stop at.")
@click.option("--build-arg", "build_args", multiple=True, metavar="NAME=VALUE")
def build_image(dockerfile: Path, tag: str, *, context: Path, target: str | None, build_args: tuple[str, ...]) -> None:
    """Build DOCKERFILE as image TAG, without a container engine; print the path of its tar."""
    arguments = dict(argument.split("=", 1) for argument in build_args)
    image = images.build_image(dockerfile, tag, context=context, target=target, build_args=arguments, say=_say)
    click.echo(asyncio.run(image))


def _running_node(directory: Path) -> Cluster:
    cluster = supervisor.running(directory)
    if cluster is None or not cluster.enter:
        raise ClusterError(f"no node runs in {directory}; `python -m testcluster up --node` starts one")
    return cluster
