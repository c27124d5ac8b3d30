"""One file per Kubernetes kind: `(service, ...) -> manifest`, or None where the service has none."""
