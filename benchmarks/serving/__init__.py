"""The serving benchmark: openclaw beside its peers, the bare protocol and the bare engine, in one session."""
