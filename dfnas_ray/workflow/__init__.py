"""The path through the stages, and what all stages share."""
