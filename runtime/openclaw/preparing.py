"""``openclaw prepare``: what runs before the server where ``spec.runtime.optimize`` asks for it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from openclaw.errors import StartupError

if TYPE_CHECKING:
    from openclaw.config import ServerConfig
    from openclaw.optimizer.step.prepare import Wanted

log = logging.getLogger(__name__)

_HELP = """Optimizes a server's model before the server starts: the init step of spec.runtime.optimize.

Fetches the model that the server's configuration names, takes the result that others have for this kind of machine
from the cache, or optimizes and leaves the result there, and puts the faster form into FOLDER, where `openclaw serve
--prepared FOLDER` finds it. Of all who do this at the same time one optimizes, and the others wait for it.

Whatever goes wrong, the model is then served as it is, and the exit code is 0; the termination log says why. Only what
keeps the server from starting, too, as a model that is not there, ends it with the server's exit codes. The extra
[optimize] is needed to optimize.

\b
Example:
  openclaw prepare --config server.json --folder forms --cache s3://models/optimized --precision auto \\
      --calibration s3://models/samples.npz --accuracy-budget "top1>=0.998"
  openclaw serve --config server.json --prepared forms
"""

STOPPED = 128 + signal.SIGTERM
"""Exit code when it is told to stop, as a shell would tell it."""


@click.command(name="prepare", help=_HELP)
@click.option("--config", type=click.Path(path_type=Path), required=True, help="The server's configuration (JSON).")
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    envvar="OPENCLAW_PREPARED",
    required=True,
    help="Where the form is put; made if it is missing. [OPENCLAW_PREPARED]",
)
@click.option("--cache", metavar="DIR|URI", required=True, help="Where results are shared.")
@click.option("--precision", type=click.Choice(["fp32", "auto"]), default="fp32", show_default=True, help="To try.")
@click.option("--calibration", metavar="URI", help="Samples: an .npz file, or file:// of a folder of them.")
@click.option("--accuracy-budget", metavar="BOUNDS", help="As of openclaw optimize.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=600.0,
    show_default=True,
    help="Seconds after which the model is served as it is.",
)
def command(config: Path, folder: Path, *, cache: str, precision: str, timeout: float, **data: Any) -> None:
    """Optimizes the model of a server, once for all who share the cache."""
    from openclaw.config import parse, read_document
    from openclaw.optimizer.step.prepare import Wanted
    from openclaw.serving import logs, process, termination

    logs.configure(os.environ)
    wanted = Wanted(mode=precision, cache=cache, folder=folder.absolute(), seconds=timeout, **data)
    try:
        line = asyncio.run(_until_stopped(parse(read_document(config)), wanted))
    except StartupError as error:
        termination.report_failure(error)
        process.leave(error.exit_code)
    if line is not None:
        termination.write_line(line)
    process.leave(STOPPED if line is None else 0)


async def _until_stopped(config: ServerConfig, wanted: Wanted) -> str | None:
    """What came of it, as the line to leave; None when it was told to stop. Raises StartupError."""
    from openclaw.optimizer.step.prepare import prepare
    from openclaw.storage.cache import default_folder

    work = asyncio.create_task(prepare(config, wanted, cache_dir=default_folder()))
    for number in (signal.SIGTERM, signal.SIGINT):
        # Nothing would end the first process of a container otherwise, but SIGKILL.
        asyncio.get_running_loop().add_signal_handler(number, work.cancel)
    try:
        summary = await work
    except asyncio.CancelledError:
        return None
    level = logging.WARNING if summary.outcome == "Failed" else logging.INFO
    log.log(level, "%s: %s", summary.outcome, summary.reason)
    return summary.line()
