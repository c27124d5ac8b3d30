"""Runs forms of a model against each other, and says which of them are faster beyond the noise."""
