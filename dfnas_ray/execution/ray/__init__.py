"""The only package that imports Ray: actors for synthesis, Tune for search, Train for retraining."""

import os

# What Ray prints of a raylet that has ended, with 20 lines of its log; the command says it in one sentence. Ray reads this once,
# when it is imported.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "Raylet is terminated")
