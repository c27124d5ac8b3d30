"""Tells what a model is made of, and what a change did to it, without running it."""
