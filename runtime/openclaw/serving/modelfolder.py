"""A folder of models that clients may load by name."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from openclaw.config import ModelConfig


class ModelFolder:
    """``FOLDER/NAME.onnx``, or ``FOLDER/NAME/VERSION/model.onnx`` of which the highest version is taken."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()

    def find(self, name: str) -> ModelConfig | None:
        """The model's configuration; None where the folder has none of that name, or it can be none."""
        try:
            config = ModelConfig(name=name, uri="file:///unknown")
        except ValidationError:
            return None  # above all: a name with which one would leave the folder
        path = self._path(name)
        return config.model_copy(update={"uri": path.as_uri()}) if path else None

    def _path(self, name: str) -> Path | None:
        single = self._folder / f"{name}.onnx"
        if single.is_file():
            return single
        versions = [found for found in (self._folder / name).glob("*/model.onnx") if found.parent.name.isdecimal()]
        return max(versions, key=lambda found: int(found.parent.name), default=None)
