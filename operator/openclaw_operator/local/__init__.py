"""Local mode: the operator's decisions carried out on one machine, with processes for pods and Envoy as the gateway."""

from importlib.util import find_spec

_MISSING = [name for name in ("envoy", "onnxruntime", "psutil", "watchfiles", "yaml") if find_spec(name) is None]
if _MISSING:
    raise ImportError(f"{', '.join(_MISSING)} not installed: local mode needs pip install 'openclaw[local]'")
