"""Brings a model from its URI to a local file."""
