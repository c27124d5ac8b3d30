"""The step before serving: has the model of a server optimized, once for all pods on machines of one kind."""
