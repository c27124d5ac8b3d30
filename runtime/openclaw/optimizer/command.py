"""``openclaw optimize``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import click

from openclaw.errors import EX_CONFIG, StartupError

_HELP = """Makes a model faster without losing accuracy unseen.

Tries what may make IN faster on this machine (fused operators, int8, int4, bf16), times every form in turns with
onnxruntime's default, and writes the fastest one that stays within the accuracy budget to OUT. OUT is not slower than
IN as far as can be told: if no form pays, it is IN, with at most properties added.

These properties say how activations are held in less memory: in which arena, and how many rows of a batch at a time.
They may take 3 % of what a faster form has gained; with --memory least they may take any time.

Lower precision needs data to judge it on: an .npz file with an array for every input, whose first axis counts samples,
or a folder of such files. One half calibrates, the other judges. Without data only what is equal within 1e-4 is tried.

\b
Examples:
  openclaw optimize model.onnx -o fast.onnx
  openclaw optimize model.onnx -o fast.onnx --calibration samples.npz
  openclaw optimize classifier.onnx -o fast.onnx --calibration samples.npz \\
      --accuracy-budget "top1>=0.998"
  openclaw optimize bert.onnx -o fast.onnx --calibration sentences/ \\
      --accuracy-budget "cosine>=0.99,cosine-worst>=0.98" --threads 2
  openclaw optimize yolo.onnx -o fast.onnx --shape images=1,3,640,640 --precision fp32
  openclaw optimize model.onnx -o fast.onnx --calibration samples.npz \\
      --metric my_package.scores:f1 --accuracy-budget "metric>=0.95"
  openclaw optimize model.onnx -o fast.onnx --calibration samples.npz \\
      --target-latency 0.02 --report report.json

\b
Metrics of a budget:
  top1           share of samples with the same highest class        (>=)
  cosine         mean cosine between both answers to a sample        (>=)
  cosine-worst   the same, of the worst sample                       (>=)
  overlap        mean intersection over union of classes, dense      (>=)
  max-abs        largest difference of two numbers                   (<=)
  relative       largest relative difference                         (<=)
  metric         what --metric computes                              (>=, <=)
"""

# What the library calls an argument, and what it is called here.
_OPTIONS = {
    "accuracy_budget": "--accuracy-budget",
    "cache": "--cache",
    "calibration": "--calibration",
    "engines": "--engine",
    "fix_shapes": "--fix-shapes",
    "max_batch_size": "--max-batch-size",
    "memory": "--memory",
    "metric": "--metric",
    "only": "--only",
    "precision": "--precision",
    "shapes": "--shape",
    "target_latency": "--target-latency",
    "threads": "--threads",
    "time_limit": "--time-limit",
}


class _Failed(click.ClickException):
    exit_code: ClassVar[int] = EX_CONFIG


class _Shape(click.ParamType[tuple[str, tuple[int, ...]]]):
    """``NAME=1,3,224,224``; an input without dimensions is ``NAME=``."""

    name = "NAME=SIZES"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        name, separator, sizes = value.rpartition("=")
        try:
            if not separator or not name:
                raise ValueError(value)
            return name, tuple(int(size) for size in sizes.split(",") if sizes)
        except ValueError:
            self.fail(f"{value!r} is no shape; write as images=1,3,224,224", param, ctx)


@click.command(name="optimize", help=_HELP)
@click.argument("source", metavar="IN.onnx", type=click.Path(path_type=Path))
@click.option("-o", "--output", metavar="OUT.onnx", type=click.Path(path_type=Path), required=True, help="The result.")
@click.option("--calibration", metavar="DATA", type=click.Path(path_type=Path), help="An .npz file, or a folder.")
@click.option("--accuracy-budget", metavar="BOUNDS", help="[default: what the kind of the outputs asks for]")
@click.option("--metric", metavar="PACKAGE.MODULE:FUNCTION", help="metric(reference: dict, candidate: dict) -> float.")
@click.option("--precision", default="auto", show_default=True, help="auto, fp32, int8, int4 or bf16.")
@click.option("--target-latency", type=float, metavar="SECONDS", help="Take the most exact form that meets it.")
@click.option("--shape", "shapes", type=_Shape(), multiple=True, help="What to time on; once for every input.")
@click.option("--fix-shapes", is_flag=True, help="The result takes the shapes of --shape alone.")
@click.option("--threads", type=int, help="Threads of one inference. [default: the cores of this process]")
@click.option("--time-limit", type=float, default=110.0, show_default=True, help="Seconds it may take; see the docs.")
@click.option("--only", multiple=True, metavar="RECIPE", help="Try this recipe; may be given several times.")
@click.option(
    "--engine",
    "engines",
    multiple=True,
    help="Try this engine; may be repeated. [default: all installed; of fp32 onnxruntime]",
)
@click.option("--memory", default="auto", show_default=True, help="How activations are held: auto, least or default.")
@click.option("--max-batch-size", type=int, default=16, show_default=True, help="Rows that will be served together.")
@click.option("--cache", metavar="DIR|URI|off", help="Earlier results. [default: optimized/ in OPENCLAW_CACHE_DIR]")
@click.option(
    "--report", "report_file", metavar="R.json", type=click.Path(path_type=Path), help="Everything found out."
)
def command(
    source: Path,
    output: Path,
    *,
    shapes: tuple[tuple[str, tuple[int, ...]], ...],
    report_file: Path | None,
    cache: str | None,
    **options: Any,
) -> None:
    """Optimizes, writes the result and shows how it was chosen."""
    try:
        _run(source, output, shapes=dict(shapes), report_file=report_file, cache=cache, options=options)
    except StartupError as error:
        raise _Failed(_in_options(str(error))) from error


def _run(
    source: Path,
    output: Path,
    *,
    shapes: Mapping[str, tuple[int, ...]],
    report_file: Path | None,
    cache: str | None,
    options: Mapping[str, Any],
) -> None:
    from openclaw.optimizer.optimize import optimize
    from openclaw.optimizer.progress import watching
    from openclaw.optimizer.results import files, table
    from openclaw.storage.cache import default_folder

    files.check_writable(output, "--output")
    if report_file is not None:
        files.check_writable(report_file, "--report")
    where = {None: default_folder() / "optimized", "off": None}.get(cache, cache)
    with watching() as watcher:
        result = optimize(source, shapes=shapes, progress=watcher, cache=where, **options)
    files.write_model(result, output)
    if report_file is not None:
        text = result.report.model_dump_json(indent=2) + "\n"
        files.write_atomically(report_file, lambda file: file.write(text.encode()))
    table.show(result.report)


def _in_options(sentence: str) -> str:
    """The library's sentence with the option's name where it begins with the argument's."""
    name, separator, rest = sentence.partition(": ")
    return f"{_OPTIONS[name]}: {rest}" if separator and name in _OPTIONS else sentence
