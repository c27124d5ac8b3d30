"""OpenClaw's runtime: load an ONNX model and run it here, or serve it over HTTP.

    import openclaw

    model = openclaw.load("digits.onnx")
    answer = model.run({"image": pixels})

Names are imported when first used, so that ``openclaw --help`` does not wait for onnxruntime.
``openclaw.DeviceManager`` lists what models can run on, and assigns tasks. ``openclaw.optimize`` makes a model faster,
and needs ``pip install 'openclaw[optimize]'``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openclaw.errors import (
    ConfigInvalid,
    DeviceUnavailable,
    InvalidRequest,
    ModelAccessDenied,
    ModelDigestMismatch,
    ModelDownloadFailed,
    ModelDownloadTimeout,
    ModelInvalid,
    ModelNotFound,
    ModelTooLarge,
    ModelWarmupFailed,
    OpenClawError,
    OutOfMemory,
    RequestError,
    StartupError,
)
from openclaw.version import __version__

if TYPE_CHECKING:
    from openclaw.devices.assigning import DeviceManager
    from openclaw.execute.session import Model
    from openclaw.library import load
    from openclaw.optimizer.optimize import optimize

__all__ = [
    "ConfigInvalid",
    "DeviceManager",
    "DeviceUnavailable",
    "InvalidRequest",
    "Model",
    "ModelAccessDenied",
    "ModelDigestMismatch",
    "ModelDownloadFailed",
    "ModelDownloadTimeout",
    "ModelInvalid",
    "ModelNotFound",
    "ModelTooLarge",
    "ModelWarmupFailed",
    "OpenClawError",
    "OutOfMemory",
    "RequestError",
    "StartupError",
    "__version__",
    "load",
    "optimize",
]


def __getattr__(name: str) -> Any:
    if name == "load":
        from openclaw.library import load

        return load
    if name == "optimize":
        return _optimize()
    if name == "DeviceManager":
        from openclaw.devices.assigning import DeviceManager

        return DeviceManager
    if name == "Model":
        from openclaw.execute.session import Model

        return Model
    raise AttributeError(f"module 'openclaw' has no attribute {name!r}")


def _optimize() -> Any:
    try:
        from openclaw.optimizer.optimize import optimize
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "openclaw"):
            raise
        raise ImportError(
            f"openclaw.optimize needs {package}, which is not installed: pip install 'openclaw[optimize]'"
        ) from error
    return optimize
