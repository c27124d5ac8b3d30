"""What the engines that are compared are called."""

from __future__ import annotations

from openclaw.memory.choice import DEFAULT

CHOSEN = "chosen"
"""The same model in the memory that the optimizer chose for it."""
LOWER = "lower precision"
"""The form of the model that the optimizer keeps within an accuracy budget, in the memory that it chose for that."""
ENGINES = (DEFAULT, CHOSEN, LOWER)
