"""``openclaw devices``: what this machine has to run models on, as a table or JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from openclaw.devices.device import Device
from openclaw.devices.inventory import THIS_MACHINE, read_devices

_HELP = """Shows the devices that models can run on: GPUs, NPUs and the CPU, of every vendor.

MEMORY and FREE are what this process can have: a container's limit, not the machine's memory. RUNS ON is the
execution provider of onnxruntime that would run a model there; where none is installed, the lines below the table
say what to install. A number under ID is what `openclaw serve --device` and openclaw.load(device=...) take.

\b
Examples:
  openclaw devices
  openclaw devices --json | jq '.[] | select(.type == "GPU")'
"""

_TITLES = ("ID", "TYPE", "VENDOR", "NAME", "MEMORY", "FREE", "LOAD", "RUNS ON")
_RIGHT = ("ID", "MEMORY", "FREE", "LOAD")
_WIDEST_NAME = 48


@click.command(help=_HELP)
@click.option("--json", "as_json", is_flag=True, help="All that is known of each, as JSON; unknown is null.")
@click.option("--root", type=click.Path(path_type=Path), default=THIS_MACHINE, hidden=True)
def command(*, as_json: bool, root: Path) -> None:
    """Looks once and tells."""
    devices = read_devices(root)
    if as_json:
        click.echo(json.dumps([dict(device) for device in devices], indent=1))
        return
    click.echo("\n".join([*table(devices), *remarks(devices)]))


def table(devices: Sequence[Device]) -> list[str]:
    """The lines of the table; unknown is a dash."""
    rows = [_TITLES, *(_row(each) for each in devices)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_TITLES))]
    return ["  ".join(_cells(row, widths)).rstrip() for row in rows]


def remarks(devices: Sequence[Device]) -> Iterator[str]:
    """What else there is to say, each with the device's number."""
    said = [(each, sentence) for each in devices for sentence in _sentences(each)]
    if said:
        yield ""
    yield from (f"{device.id}: {sentence}" for device, sentence in said)


def _cells(row: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    for title, cell, width in zip(_TITLES, row, widths, strict=True):
        yield cell.rjust(width) if title in _RIGHT else cell.ljust(width)


def _row(device: Device) -> tuple[str, ...]:
    name = device.name if len(device.name) <= _WIDEST_NAME else device.name[: _WIDEST_NAME - 1] + "…"
    return (
        str(device.id),
        device.type,
        device.vendor,
        name,
        _size(device.memory),
        _size(device.memory_free),
        "-" if device.load is None else f"{device.load:.0%}",
        (device.provider or "-") if device.obstacle is None else "-",
    )


def _size(number: int | None) -> str:
    return "-" if number is None else f"{number / 2**30:.1f} GiB"


def _sentences(device: Device) -> Iterator[str]:
    if device.type == "CPU":
        cores = f"{device.cores:g} core{'' if device.cores == 1 else 's'}" if device.cores else "cores unknown"
        yield f"{cores}; {', '.join(device.instructions) or 'instruction sets unknown'}"
    if device.obstacle:
        yield device.obstacle
    yield from device.notes
