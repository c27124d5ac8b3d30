"""A gRPC server over real models in the process of the test, and what asks it."""
