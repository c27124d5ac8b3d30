"""One small server a peer, each run in that peer's own environment: nothing here imports what is outside of it."""
