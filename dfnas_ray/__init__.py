"""Data-free neural architecture search on Ray."""
