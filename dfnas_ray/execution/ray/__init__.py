"""The only package that imports Ray: actors for synthesis, Tune for search, Train for retraining."""
