"""The stages of an experiment, their order, and what all stages share."""
