"""Noise to images: model inversion with recursive label calibration and regional update."""
