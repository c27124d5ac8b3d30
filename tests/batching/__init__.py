"""Models and loads for the tests and measurements of batching."""
