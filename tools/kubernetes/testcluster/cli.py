"""The command line: build the tools, start and stop a cluster by hand."""

import asyncio

import click

from testcluster import toolchain
from testcluster.errors import ClusterError


def _say(line: str) -> None:
    click.echo(line, err=True)


class _Commands(click.Group):
    """Shows our own errors as one sentence instead of a traceback."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ClusterError as error:
            raise click.ClickException(str(error)) from error


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
