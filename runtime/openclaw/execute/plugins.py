"""Execution providers that come as plugins: onnxruntime loads each once, when a device is first asked of it."""

from __future__ import annotations

import importlib
import logging
from functools import cache
from typing import Any

import onnxruntime

from openclaw.devices.providers import plugin_of

log = logging.getLogger(__name__)


def plugged_in(provider: str, ov_device: str) -> Any | None:
    """A device as the plugin of its provider offers it.

    Args:
        provider: its execution provider.
        ov_device: as OpenVINO names it: ``CPU``, ``GPU.0``, ``NPU``. The only one of a kind it names without ``.0``.

    Returns:
        onnxruntime's ``OrtEpDevice``; None where the plugin is not installed, cannot be loaded, or has no such device.
    """
    if not _is_loaded(provider):
        return None
    names = (ov_device, ov_device.removesuffix(".0"))
    found = (one for one in onnxruntime.get_ep_devices() if one.ep_name == provider)
    return next((one for one in found if one.ep_metadata.get("ov_device") in names), None)


@cache
def _is_loaded(provider: str) -> bool:
    module = plugin_of(provider)
    if module is None:
        return False
    try:
        library = importlib.import_module(module).get_library_path()
        onnxruntime.register_execution_provider_library(provider, library)
    except Exception as error:
        # onnxruntime's exceptions have no common base below Exception, and a plugin's loader raises any.
        log.warning("the plugin of %s cannot be loaded, so it is not used: %s", provider, error)
        return False
    return True
