"""Estimate the cost of an experiment before it starts, and choose settings for a teacher and a time."""
