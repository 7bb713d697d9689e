"""Published weights of other projects, brought in with an account of every tensor: one small file for each layout."""

from scanlearn.weights.layouts.importing import import_weights

__all__ = ["import_weights"]
