"""Sweeps over synthesis settings: what is varied, and how it is judged. `execution.ray.sweep` runs a sweep."""
