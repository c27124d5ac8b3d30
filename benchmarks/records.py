"""What a benchmark keeps in JSON, so that a later run of a part can be joined with it."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """A part of what is kept; what no field is for is refused, and a float that JSON has not is null."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")

    @classmethod
    def read(cls, file: Path) -> Self | None:
        """What was kept there; None of nothing, or of what an older benchmark wrote."""
        if not file.exists():
            return None
        try:
            return cls.model_validate_json(file.read_bytes())
        except ValueError:
            return None


class Origin(Record):
    """Which code, when."""

    commit: str
    date: str
