"""What a client may say beside a model's name when it loads or unloads it, over REST as over gRPC.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_model_repository.md
"""

from __future__ import annotations

from collections.abc import Iterable

from openclaw.errors import Unsupported
from openclaw.serving.shown import shown

# tritonclient sends it with every unload; no model here depends on another.
_WITHOUT_EFFECT = frozenset({"unload_dependents"})


def check_parameters(names: Iterable[str]) -> None:
    """Raises Unsupported where one is a request that would not be heeded, such as for another configuration."""
    unknown = sorted(set(names) - _WITHOUT_EFFECT)
    if unknown:
        raise Unsupported(f"parameter {shown(unknown[0])} is not supported; models are loaded as they are configured")
