"""From a model's file to a model that answered an inference: load, warm up; and measure."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from openclaw.config import ModelConfig
from openclaw.devices.memory import room_bytes
from openclaw.errors import ModelNotFound, OutOfMemory, StartupError
from openclaw.execute.placed import open_model
from openclaw.execute.session import Model
from openclaw.memory.tiers import Tier
from openclaw.serving.batching.measuring import ModelProfile, profile_model, unmeasured
from openclaw.serving.batching.room import Room
from openclaw.serving.batching.settings import BatchingSettings
from openclaw.serving.warmup import warm_up
from openclaw.storage.prepared import form_of
from openclaw.storage.uri import parse

log = logging.getLogger(__name__)

_SMALL = 4 * 2**20
"""Bytes of a file; reading so many from memory takes several times as long as having a thread run a model."""

_ROOM = 2
"""onnxruntime holds the file's weights and those that it prepared for its kernels at the same time while it loads."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that is ready to answer.

    Attributes:
        config: what was asked for.
        model: itself.
        seconds: that loading took.
        inline: the same on one thread, for runs on the event loop: those of several threads wait there for threads
            that wait for a core. None: the model itself.
        profile: how long its batches take, as far as that was measured.
        tier: where its weights are.
        took: bytes of memory that opening it took, as far as that was measured.
        warmed: those of them that are not its weights: what one row took, while it was warmed up.
    """

    config: ModelConfig
    model: Model
    seconds: float
    profile: ModelProfile = field(default_factory=unmeasured)
    inline: Model | None = None
    tier: Tier = Tier.PACKED
    took: int = 0
    warmed: int = 0

    def close(self) -> None:
        """Gives its memory back; it answers nothing any more."""
        for model in (self.model, self.inline):
            if model is not None:
                model.close()


def check_room(path: Path, room: int | None) -> None:
    """Whether a model fits into the memory that is left beside those that serve.

    Args:
        path: its file.
        room: bytes that are left; None: unknown.

    Raises:
        OutOfMemory: it does not.
        ModelNotFound: the file is gone.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise ModelNotFound(f"there is no model at {path}: {error.strerror}") from error
    if room is not None and size * _ROOM > room:
        raise OutOfMemory(
            f"its file has {size:,} bytes, of which {_ROOM} times as much is needed while it loads, and {room:,} bytes "
            "are left; unload another model first, or raise the memory limit"
        )


def load(config: ModelConfig, path: Path, *, threads: int, device: str | None = None) -> Loaded:
    """Loads and warms up, where there is one the form that was prepared; takes as long as the model needs.

    Raises:
        StartupError: the model cannot be loaded, or fails.
    """
    began = time.perf_counter()
    model = _prepared(config, path, threads=threads, device=device) or _warm(
        config, path, threads=threads, device=device
    )
    inline = _on_one_thread(config, model)
    return Loaded(config, model, seconds=time.perf_counter() - began, inline=inline)


def load_mapped(config: ModelConfig, path: Path, form: Path, *, threads: int, warm: bool = True) -> Loaded:
    """The same with weights that are mapped, on onnxruntime's own kernels.

    Args:
        config: what was asked for.
        path: the model file.
        form: that file's, which can be mapped.
        threads: for one inference.
        warm: whether to warm it up.

    Raises:
        StartupError: the model cannot be loaded, or fails.
    """
    began = time.perf_counter()
    model = Model.from_file(form, name=config.name, threads=threads, source=str(parse(config.uri)), mapped=True)
    if warm:
        log.info("mapped %s with %d thread(s) of %s", path, model.threads, model.engine)
        warm_up(model, config.warmup.requests)
    return Loaded(config, model, seconds=time.perf_counter() - began, tier=Tier.MAPPED)


def reload(config: ModelConfig, path: Path, *, threads: int, device: str | None = None) -> Loaded:
    """A model that was loaded before from this very file, without warming it up. Raises StartupError."""
    began = time.perf_counter()
    model = open_model(path, device=device, name=config.name, threads=threads, source=str(parse(config.uri)))
    inline = _on_one_thread(config, model)
    return Loaded(config, model, seconds=time.perf_counter() - began, inline=inline)


def _on_one_thread(config: ModelConfig, model: Model) -> Model | None:
    """Of a model that may be quick; what is larger takes longer to read than a run on the event loop may take."""
    if model.threads == 1 or (model.device and not model.device.on_cpu) or not _is_small(model.path):
        return None
    return Model.from_file(model.path, name=config.name, threads=1, source=str(parse(config.uri)))


def _is_small(path: Path) -> bool:
    """Whether a model and its weights are small; weights beside the file are named by a ``location`` (onnx.proto)."""
    return path.stat().st_size <= _SMALL and b"location" not in path.read_bytes()


def _prepared(config: ModelConfig, path: Path, *, threads: int, device: str | None) -> Model | None:
    """The faster form of this very file; None where there is none, or none that can be served here."""
    form = form_of(config.prepared, path)
    if form is None:
        return None
    try:
        model = _warm(config, form, threads=threads, device=device)
    except StartupError as error:
        # Another version of onnxruntime may have made it.
        log.warning("the optimized form of %s is not served, but the model itself: %s", config.name, error)
        return None
    log.info("%s is served in its optimized form", config.name)
    return model


def _warm(config: ModelConfig, path: Path, *, threads: int, device: str | None) -> Model:
    model = open_model(path, device=device, name=config.name, threads=threads, source=str(parse(config.uri)))
    if model.device:
        log.info("%s runs on %s with %s", config.name, model.device.device.title, model.device.provider)
    log.info("loaded %s with %d thread(s) of %s", path, model.threads, model.engine)
    warm_up(model, config.warmup.requests)
    return model


def measured(loaded: Loaded) -> Loaded:
    """The same with the latency of its batches; takes two seconds, or as long as one run of a slow model."""
    model, room = loaded.model, Room(room_bytes, loaded.warmed)
    profile = profile_model(model.infer, model.signature, settings=settings_of(loaded.config), room=room)
    return replace(loaded, profile=profile)


def settings_of(config: ModelConfig) -> BatchingSettings:
    """What the model's configuration says of batching."""
    batching = config.batching
    return BatchingSettings(
        max_batch_size=batching.max_batch_size,
        latency_target=batching.latency_target_seconds,
        max_queue_length=batching.max_queue_length,
        max_queue_bytes=batching.max_queue_bytes,
        padding=batching.padding,
        mask=batching.mask,
    )
