"""What all benchmarks of a part came to: every target that their JSON keeps, in one table."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks import markdown
from benchmarks.targets import NOT_MEASURED, Verdict, shown


def summary(files: Iterable[Path]) -> str:
    """The table in Markdown, with the commit that each target was measured at.

    Args:
        files: JSON with ``verdicts`` and the ``machine`` that they are of; one that is not there was not measured.
    """
    rows = [row for file in files for row in _rows(file)]
    return markdown.table(["Target", "Measured", "Holds", "Commit"], rows)


def _rows(file: Path) -> list[list[str]]:
    kept: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    told = [Verdict(**each) for each in kept.get("verdicts", ())]
    if not told:
        return [[f"what {file.name} is to keep", NOT_MEASURED, "", ""]]
    commit = str(kept.get("machine", {}).get("commit", ""))
    return [[each.target, each.measured, shown(each.holds), commit] for each in told]
