"""What the step before serving hands to the process that optimizes for it; that one may die, and the step goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

JOB = "job.json"
"""A job's own file. Where it is left, the machine or the container died while somebody was at it."""
CLAIM = "claim.json"


class Claimed(BaseModel):
    """The claim that is held, for whoever has to say that its holder died."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cache: str
    key: str
    number: int


class Job(BaseModel):
    """One optimization.

    Attributes:
        model: a local file.
        mode: ``fp32`` or ``auto``.
        calibration: a local file or folder.
        accuracy_budget: as ``openclaw optimize`` takes it.
        cache: where the result is shared, a folder or URI.
        threads: that one inference will have.
        seconds: to wait for others who are at it.
        max_batch_size: rows that requests are served in together, at most.
        time_limit: seconds, of ``openclaw optimize``; part of what a result is found by, so the same for all.
        form: the file to write a faster form to.
        folder: where the job itself lies, and what is told of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Path
    mode: str
    calibration: Path | None = None
    accuracy_budget: str | None = None
    cache: str
    threads: int
    max_batch_size: int
    seconds: float
    time_limit: float
    form: Path
    folder: Path

    @property
    def file(self) -> Path:
        """The job itself."""
        return self.folder / JOB

    @property
    def told(self) -> Path:
        """The summary of what came of it."""
        return self.folder / "summary.json"

    @property
    def claimed(self) -> Path:
        """The claim, while it is held."""
        return self.folder / CLAIM

    @classmethod
    def read(cls, file: Path) -> Self:
        """A job from its file; raises OSError, or ValueError where it is damaged."""
        return cls.model_validate_json(file.read_bytes())
