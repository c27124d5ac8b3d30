"""A session on the device that a task was assigned to, or none at all: never quietly on another."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from openclaw.devices.assigning import Assignment
from openclaw.devices.providers import plugin_of
from openclaw.errors import DeviceUnavailable
from openclaw.execute.engines import not_started
from openclaw.execute.plugins import plugged_in

# What is wrong with a model is wrong with it on every device.
_OF_THE_MODEL = (ort_errors.InvalidGraph, ort_errors.InvalidProtobuf, ort_errors.NoModel, ort_errors.NoSuchFile)


def open_on(device: Assignment, path: Path, options: Any) -> Any:
    """A session of onnxruntime whose first provider is the device's.

    Args:
        device: where; its variables are set in this process where they are not.
        path: the model.
        options: of the session; those of a plugin are added.

    Raises:
        DeviceUnavailable: the provider is not installed any more, or cannot be started.
        Exception: what onnxruntime raises for the model's sake.
    """
    provider, title = device.provider, device.device.title
    for name, value in device.device.environment:
        os.environ.setdefault(name, value)
    providers = _providers(device, options)
    try:
        session = onnxruntime.InferenceSession(path, options, providers=providers, enable_fallback=False)
    except _OF_THE_MODEL:
        raise
    except Exception as error:
        # onnxruntime's exceptions have no common base below Exception.
        said = " ".join(str(error).split())[:600]
        raise DeviceUnavailable(f"{title}: {provider} cannot run {path.name}: {said}") from error
    if (reason := not_started(session, provider)) is not None:
        raise DeviceUnavailable(f"{title}: {reason}")
    return session


def _providers(device: Assignment, options: Any) -> list[Any] | None:
    """What to make the session with; None: the options have it."""
    # Once it was loaded a plugin is listed among the providers too, but cannot be had by its name.
    if plugin_of(device.provider) is None and device.provider in onnxruntime.get_available_providers():
        return device.providers
    found = plugged_in(device.provider, device.device["options"].get("device_type", ""))
    if found is None:
        raise DeviceUnavailable(
            f"{device.device.title} cannot be used: {device.provider} does not find it here; "
            f"{device.device.route.install}"
        )
    options.add_provider_for_devices([found], {})
    return None
