"""The only place that imports Ray: actors for synthesis, Tune for search, Train for retraining."""
