"""The models that the optimizer is measured on, drawn by this code: one file a family."""
