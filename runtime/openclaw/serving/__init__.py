"""Answers requests over the network."""
