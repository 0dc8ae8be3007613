"""Model inversion: the pixels themselves are optimised, a batch at a time."""
