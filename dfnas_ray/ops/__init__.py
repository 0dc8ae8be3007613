"""Primitives from which search spaces and teachers are built, and the cost of a network."""
