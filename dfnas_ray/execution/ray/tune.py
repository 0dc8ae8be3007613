"""How an experiment with Ray Tune is run."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from ray import tune


def fit(
    trainable: Any,
    name: str,
    config: tune.TuneConfig,
    attempts: int,
    param_space: Mapping[str, Any] | None = None,
    callbacks: Sequence[tune.Callback] = (),
) -> tune.ResultGrid:
    """Run all trials to their end; what Tune itself writes is not kept.

    Args:
        trainable: With its resources.
        name: Of the experiment.
        config: Who proposes trials, and who stops them.
        attempts: How often a trial is started that breaks off.
        param_space: Where no searcher proposes: the settings of the trials.
        callbacks: Told in this process of what happens.
    """
    with tempfile.TemporaryDirectory(prefix="dfnas-tune-") as scratch:
        return tune.Tuner(
            trainable,
            param_space=dict(param_space) if param_space is not None else None,
            run_config=tune.RunConfig(
                name=name,
                storage_path=scratch,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=attempts - 1),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # trials keep their own states
                callbacks=list(callbacks),
            ),
            tune_config=config,
        ).fit()
