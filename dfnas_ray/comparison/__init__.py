"""Comparisons: the same search under different settings, such as synthetic, real and noise images, over seeds."""
