"""Where tensors lie in memory: planned before the model runs, so that as little as possible is enough."""
