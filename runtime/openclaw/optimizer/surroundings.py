"""What a measurement depends on beside the model: the machine and the versions of what ran."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from openclaw.devices.cpu import Grant, default_threads, read_grant
from openclaw.devices.instructions import read_instructions, read_processor
from openclaw.errors import ConfigInvalid
from openclaw.optimizer.results.report import Machine
from openclaw.version import __version__

OPTIMIZER = 11
"""Raised whenever the same options could give another result; older entries of the cache are then passed over."""

_PACKAGES = ("onnx", "onnx-ir", "onnxscript", "numpy")
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
    # Whichever package brings it: onnxruntime, onnxruntime-gpu, or one that a vendor built.
    import onnxruntime

    return {
        "openclaw": __version__,
        "optimizer": str(OPTIMIZER),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
        **{name: version(name) for name in _PACKAGES},
        **dict(_installed(_ENGINES)),
    }


def read_gpus(root: Path = Path("/"), *, engines: Mapping[str, str] | None = None) -> list[str]:
    """Names of the GPUs that an engine may run on; none where onnxruntime has no engine for GPUs.

    Args:
        root: folder that holds ``sys``, ``proc`` and ``dev``.
        engines: by name their providers; by default those that the installed onnxruntime has built in.
    """
    if engines is None:
        from openclaw.execute.engines import built_in

        engines = built_in()
    if not engines:
        return []
    # Every vendor's devices: rarely asked for, and not quick to import.
    from openclaw.devices.inventory import read_devices

    found = read_devices(root, installed=frozenset(engines.values()))
    return sorted(device.name for device in found if device.type == "GPU" and device.provider is not None)


def _installed(packages: Iterable[str]) -> Iterator[tuple[str, str]]:
    for name in packages:
        with suppress(PackageNotFoundError):
            yield name, version(name)
