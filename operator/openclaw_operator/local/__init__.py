"""Local mode: the operator's decisions carried out on one machine, with processes for pods and Envoy as the gateway."""
