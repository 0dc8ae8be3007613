"""Model inversion: the pixels themselves are optimised, one batch at a time."""
