"""What a model looks like from outside, and (later) what is done to its graph."""
