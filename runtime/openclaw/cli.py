"""The ``openclaw`` command.

Commands that need more than serving does are imported only when they are run, so that help stays fast. So are those
from the entry point group ``openclaw.commands`` of whatever is installed, and a broken one does not take the others
down.
"""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from openclaw.errors import ConfigInvalid, StartupError
from openclaw.version import __version__

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

COMMANDS = "openclaw.commands"

# Name -> where it is, and what the list of commands says of it. All but `devices` need the extra [optimize].
LAZY = {
    "devices": ("openclaw.devices.command:command", "Shows what this machine has to run models on."),
    "inspect": ("openclaw.inspection.command:command", "Shows what a model is made of, and what a change did to it."),
    "optimize": ("openclaw.optimizer.command:command", "Makes a model faster without losing accuracy unseen."),
    "prepare": ("openclaw.preparing:command", "Optimizes a server's model before the server starts."),
}

# A paragraph that begins with \b is printed as it stands.
_HELP = """Puts a model into production: here, in a container, or on Kubernetes.

\b
Begin with:
  openclaw serve model.onnx
  openclaw optimize model.onnx -o fast.onnx
"""

_SERVE_HELP = """Serves ONNX models over HTTP, and over gRPC with --grpc-port (Open Inference Protocol).

MODEL is a path or a URI: s3://, gs://, az://, http(s)://, file://. Each further one is served beside the
first. Without MODEL and --config, the environment variable MODEL_PATH names it.

\b
Examples:
  openclaw serve digits.onnx
  openclaw serve s3://models/digits.onnx --name digits --port 9000
  openclaw serve digits.onnx letters.onnx --grpc-port 8081
  openclaw serve bert.onnx --latency-target 0.1 --max-batch-size 16
  openclaw serve --config server.json
  MODEL_PATH=/models/digits.onnx openclaw serve

\b
Then:
  curl localhost:8080/v2/models/digits
"""


class Commands(click.Group):
    """The commands of this package and those of installed plugins."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands; nothing is imported."""
        return sorted({*super().list_commands(ctx), *LAZY, *_plugins()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now if it is not one of serving."""
        if cmd_name in LAZY:
            return _lazy(cmd_name)
        own = super().get_command(ctx, cmd_name)
        if own is not None or cmd_name not in _plugins():
            return own
        return _imported(_plugins()[cmd_name])

    def invoke(self, ctx: click.Context) -> Any:
        """Runs a command; one that lacks a package says which extra brings it."""
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if ctx.invoked_subcommand not in LAZY or package in ("", "openclaw"):
                raise
            raise click.ClickException(
                f"openclaw {ctx.invoked_subcommand} needs {package}, which is not installed: "
                "pip install 'openclaw[optimize]'"
            ) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the commands; a plugin is named with its home instead of being imported for its help."""
        rows = []
        for name in self.list_commands(ctx):
            if name in LAZY:
                rows.append((name, LAZY[name][1]))
                continue
            own = super().get_command(ctx, name)
            home = "" if own else _plugins()[name].module.partition(".")[0]
            rows.append(
                (name, own.get_short_help_str(72) if own else f"Provided by {home}; see `openclaw {name} --help`.")
            )
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _lazy(name: str) -> click.Command:
    from importlib import import_module

    module, _, attribute = LAZY[name][0].partition(":")
    command: click.Command = getattr(import_module(module), attribute)
    return command


def _plugins() -> dict[str, EntryPoint]:
    # Only where it is needed: it takes as long to import as all else here.
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=COMMANDS)}


def _imported(point: EntryPoint) -> click.Command:
    try:
        command = point.load()
    except Exception as error:
        # A plugin is foreign code: whatever it raises must cost only this command.
        raise click.ClickException(f"the command {point.name!r} ({point.value}) cannot be loaded: {error}") from error
    if not isinstance(command, click.Command):
        raise click.ClickException(f"the command {point.name!r} ({point.value}) is not a click command")
    return command


@click.group(cls=Commands, help=_HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="openclaw")
def main() -> None:
    """The group of all commands."""


class _Serve(click.Command):
    """A wrong option is told like any wrong setting: whoever runs the container may not see its stderr."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            from openclaw.serving.termination import write_log

            write_log(ConfigInvalid(error.format_message()))
            error.show()
            ctx.exit(ConfigInvalid.exit_code)


class _Port(click.ParamType[int | None]):
    """A port; or what Kubernetes puts there for a Service named openclaw, which says nothing about us."""

    name = "integer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if isinstance(value, str) and value.startswith("tcp://"):
            return None
        return click.INT.convert(value, param, ctx)


_UNITS: dict[str, int] = {"": 1} | {
    f"{prefix}{suffix}": int((1024 if suffix[:1] == "i" else 1000) ** power)
    for power, prefix in enumerate("KMGT", start=1)
    for suffix in ("", "B", "i", "iB")
}
_DIGITS = 18  # more bytes than an address has


class _Size(click.ParamType[int]):
    """Bytes, as a number or as people and Kubernetes write them."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        number = str(value).rstrip("KMGTiB")
        unit = _UNITS.get(str(value)[len(number) :])
        if unit is None or len(number) > _DIGITS or not (number.isascii() and number.isdecimal()):
            self.fail(f"{value!r} is not a size; write bytes, or a whole number of KiB, MiB or GiB: 600MiB", param, ctx)
        return int(number) * unit


@main.command(cls=_Serve, help=_SERVE_HELP)
@click.argument("models", metavar="[MODEL]...", nargs=-1)
@click.option("--config", type=click.Path(path_type=Path), help="The server's configuration file (JSON).")
@click.option("--name", help="The model's name in URLs. [default: the file's name without its ending]")
@click.option(
    "--port", type=_Port(), envvar="OPENCLAW_PORT", help="Port to listen on; 0 takes a free one. [default: 8080]"
)
@click.option(
    "--grpc-port", type=_Port(), envvar="OPENCLAW_GRPC_PORT", help="Port for gRPC; 0 takes a free one. [default: none]"
)
@click.option("--host", envvar="OPENCLAW_HOST", help="Address to listen on. [default: 0.0.0.0]")
@click.option("--threads", type=int, help="Threads for one inference. [default: this process's cores / workers]")
@click.option("--device", help="A number of `openclaw devices`, auto, gpu, npu or cpu. [default: cpu]")
@click.option("--workers", type=int, help="Processes that share the port. [default: 1]")
@click.option("--max-batch-size", type=int, help="Most rows in one run of the model; 1: no batching. [default: 32]")
@click.option("--latency-target", type=float, help="Seconds an answer may take; later ones are refused. [default: any]")
@click.option("--model-control/--no-model-control", default=None, help="Whether clients may load and unload models.")
@click.option("--model-folder", help="Folder of models that clients may load by name; with --model-control.")
@click.option("--shared-memory/--no-shared-memory", default=None, help="Whether tensors may lie in shared memory.")
@click.option(
    "--memory-budget", type=_Size(), help="Memory for models and buffers, as 600MiB. [default: what is granted]"
)
@click.option("--sha256", help="The digest that the model's bytes must have.")
@click.option("--prepared", metavar="FOLDER", envvar="OPENCLAW_PREPARED", help="Where `openclaw prepare` left a form.")
@click.option("--warmup-requests", type=int, help="Inferences answered before it is ready. [default: 1]")
@click.option("--download-timeout", type=int, help="Seconds a download may take. [default: 600]")
@click.option("--max-request-bytes", type=int, help="Largest request body. [default: 67108864]")
@click.option("--drain-delay", type=int, help="Seconds it still answers after SIGTERM. [default: 5]")
@click.option("--drain-timeout", type=int, help="Seconds that requests in flight then have to finish. [default: 45]")
def serve(models: tuple[str, ...], config: Path | None, **options: Any) -> None:
    """Serves until told to stop, and exits with the code of the failure."""
    # None of it is garbage, and the collector would look again and again: a tenth of what the imports take.
    gc.disable()
    from openclaw.serving import entry, logs, process, settings, termination

    gc.enable()
    logs.configure(os.environ)
    process.raise_file_limit()
    if not models and config is None and (path := os.environ.get("MODEL_PATH")):
        models = (path,)
    try:
        code = entry.run(settings.layered(config, models, options))
    except StartupError as error:
        termination.report_failure(error)
        code = error.exit_code
    process.leave(code)
