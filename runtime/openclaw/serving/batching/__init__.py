"""Adaptive batching: requests that wait share a run of the model where that was measured to pay."""
