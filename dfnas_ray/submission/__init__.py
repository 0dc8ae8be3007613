"""Sending a command to a Ray cluster as a job."""
