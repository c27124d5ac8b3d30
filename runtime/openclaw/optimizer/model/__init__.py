"""The model that is given: read, verified, and in order."""
