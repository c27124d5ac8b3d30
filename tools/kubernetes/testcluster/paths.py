"""Where the tooling finds its inputs and keeps what it builds."""

import os
from pathlib import Path

MODULES = Path(__file__).resolve().parent.parent / "modules"
"""One Go module per pinned version of a tool."""

REPOSITORY = MODULES.parents[2]


def cache() -> Path:
    """What may be deleted at any time and is made again: `.cache/` in the working tree."""
    return REPOSITORY / ".cache"


def binaries() -> Path:
    """Where built commands lie: `$OPENCLAW_TOOLS_BIN`, else `.cache/bin` in the working tree."""
    chosen = os.environ.get("OPENCLAW_TOOLS_BIN")
    return Path(chosen).absolute() if chosen else cache() / "bin"
