"""The control plane of OpenClaw: reconciles InferenceServices into what Kubernetes runs."""
