"""What a measurement depends on beside the model: the machine and the versions of what ran."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

from openclaw.devices.cpu import Grant, default_threads, read_grant
from openclaw.devices.instructions import read_instructions, read_processor
from openclaw.errors import ConfigInvalid
from openclaw.optimizer.results.report import Machine
from openclaw.version import __version__

OPTIMIZER = 3
"""Raised whenever the same options could give another result; older entries of the cache are then passed over."""

_PACKAGES = ("onnxruntime", "onnx", "onnx-ir", "onnxscript", "numpy")
_ENGINES = ("onnxruntime-ep-openvino", "onnxruntime-gpu")
"""Packages that bring engines, and need not be there."""


def read_machine(threads: int | None, grant: Grant | None = None) -> Machine:
    """The machine as this process sees it; raises ConfigInvalid for a number of threads that cannot be."""
    grant = grant or read_grant()
    if threads is not None and threads < 1:
        raise ConfigInvalid(f"threads: it is {threads}; allowed is 1 and more")
    return Machine(
        processor=read_processor() or platform.processor() or platform.machine(),
        instructions=sorted(read_instructions()),
        cores=grant.cores,
        threads=threads or default_threads(grant.cores),
        system=f"{platform.system()} {platform.machine()}",
    )


def read_versions() -> dict[str, str]:
    """Versions of everything that decides what comes out."""
    return {
        "openclaw": __version__,
        "optimizer": str(OPTIMIZER),
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
        **dict(_installed(_ENGINES)),
    }


def _installed(packages: Iterable[str]) -> Iterator[tuple[str, str]]:
    for name in packages:
        with suppress(PackageNotFoundError):
            yield name, version(name)
