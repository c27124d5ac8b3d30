"""A model on a device: the one that was assigned, named, or found to suit best."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from openclaw.execute.session import Model

if TYPE_CHECKING:
    from openclaw.devices.assigning import Assignment


def open_model(
    path: Path,
    *,
    device: Assignment | str | int | None = None,
    name: str | None = None,
    threads: int | None = None,
    source: str | None = None,
) -> Model:
    """Loads an ONNX file on a device.

    Args:
        path: the file.
        device: an assignment, a device's number, ``auto``, ``gpu``, ``npu`` or ``cpu``; None: the CPU, not asked for.
        name: as :meth:`Model.from_file` takes it.
        threads: for one inference, by default those of the assignment.
        source: what errors call the file.

    Raises:
        StartupError: the model cannot be loaded, or no device can take it.
    """
    if device is None:
        return Model.from_file(path, name=name, threads=threads, source=source)
    # Knowing every vendor's devices takes as long to import as a small model to load.
    from openclaw.devices.assigning import assigned, carried_out

    def on(assignment: Assignment) -> Model:
        return Model.from_file(path, name=name, threads=threads, source=source, device=assignment)

    return carried_out(assigned(device, memory=_least_memory(path)), on)


def _least_memory(path: Path) -> int:
    """A model needs at least its weights, in the file and beside it; how much more, only running it tells."""
    from openclaw.graph.weights import read_weights
    from openclaw.graph.wire import MalformedError

    try:
        weights = read_weights(path)
    except (OSError, MalformedError):
        return 0  # opening it finds the words
    return weights.size + weights.outside
