"""The graph optimizer measured against onnxruntime's own defaults."""
