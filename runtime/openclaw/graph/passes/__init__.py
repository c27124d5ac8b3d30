"""Lossless rewrites of a graph, one a module, in the order they are run."""
