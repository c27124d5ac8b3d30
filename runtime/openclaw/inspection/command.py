"""``openclaw inspect``: what a model is made of, what became of it, and its plan, as a table, JSON or a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from openclaw.errors import ConfigInvalid, StartupError
from openclaw.inspection import arena_picture, picture, plan_table
from openclaw.inspection.anatomy import Inspection, inspect
from openclaw.inspection.memory import planned
from openclaw.inspection.table import tables
from openclaw.inspection.tensors import Shape

_HELP = """Shows what an ONNX model is made of, and with AFTER what became of it.

Nodes by operator, fusions, precision, size, multiply-accumulates, and the memory that weights and intermediate
tensors take. Nothing is run, and large weights are not read. With --memory the plan of that memory instead: how
little is enough for the intermediate tensors, and where in it each one lies.

\b
Examples:
  openclaw inspect model.onnx
  openclaw inspect bert.onnx --shape input_ids=1,128 --shape attention_mask=1,128
  openclaw inspect model.onnx optimized.onnx --svg memory.svg
  openclaw inspect model.onnx --json | jq .fusions
  openclaw inspect model.onnx --memory --shape image=16,3,224,224 --svg plan.svg
"""


class _InputShape(click.ParamType[tuple[str, Shape]]):
    """``NAME=1,128``."""

    name = "name=sizes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Shape]:
        if isinstance(value, tuple):
            return value
        name, separator, sizes = str(value).rpartition("=")
        try:
            shape = tuple(int(size) for size in sizes.split(",")) if sizes else ()
        except ValueError:
            shape = (-1,)
        if not separator or not name or any(size < 0 for size in shape):
            self.fail(f"{value!r} is not NAME=SIZES; write for example image=1,3,224,224", param, ctx)
        return name, shape


@click.command(help=_HELP)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path), required=False)
@click.option("--shape", "shapes", type=_InputShape(), multiple=True, help="Sizes of an input; free ones are 1 else.")
@click.option("--memory", is_flag=True, help="The plan of the memory: its arena, lower bound, and largest tensors.")
@click.option("--json", "as_json", is_flag=True, help="All of it as JSON: every node, or the place of every tensor.")
@click.option(
    "--svg", type=click.Path(path_type=Path), metavar="FILE", help="Also draw memory over the run, or the plan."
)
def command(
    model: Path,
    after: Path | None,
    *,
    shapes: tuple[tuple[str, Shape], ...],
    memory: bool,
    as_json: bool,
    svg: Path | None,
) -> None:
    """Tells it, or says in a sentence what is wrong with a file."""
    models = [path for path in (model, after) if path is not None]
    try:
        shown, plain, text = (_plans if memory else _anatomies)(models, dict(shapes))
        if svg is not None:
            _write(svg, text)
    except StartupError as error:
        click.echo(f"Error: {error}", err=True)
        raise SystemExit(error.exit_code) from error
    if as_json:
        click.echo(json.dumps(_one_or_both(plain), indent=1))
    else:
        Console(highlight=False, markup=False).print(*shown, sep="\n")


_Told = tuple[Sequence[Table | str], list[dict[str, Any]], str]
"""The same for people, for programs and as a picture."""


def _anatomies(models: Sequence[Path], shapes: dict[str, Shape]) -> _Told:
    told = [inspect(path, shapes) for path in models]
    return tables(told), [document(each) for each in told], picture.drawn(told)


def _plans(models: Sequence[Path], shapes: dict[str, Shape]) -> _Told:
    told = [planned(path, shapes) for path in models]
    return plan_table.tables(told), [plan_table.document(each) for each in told], arena_picture.drawn(told)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigInvalid(f"--svg {path} cannot be written: {error.strerror}") from error


def document(told: Inspection) -> dict[str, Any]:
    """An inspection as JSON has it."""
    return {**asdict(told), "nodes": told.nodes}


def _one_or_both(plain: list[dict[str, Any]]) -> dict[str, Any]:
    return plain[0] if len(plain) == 1 else {"before": plain[0], "after": plain[1]}
