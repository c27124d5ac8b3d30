"""Forms that are made for another engine than onnxruntime's own kernels."""

from __future__ import annotations

from openclaw.errors import NotApplicable
from openclaw.execute.engines import OWN, installed


def need(engine: str) -> None:
    """Raises NotApplicable where an engine is not installed."""
    if engine != OWN and engine not in installed():
        raise NotApplicable(f"it runs on {engine}, which is not installed: pip install 'openclaw[{engine}]'")
