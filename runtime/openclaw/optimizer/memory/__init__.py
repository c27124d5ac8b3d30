"""How a model holds activations: arenas and micro-batches are measured on it, and what pays is named in its file."""
