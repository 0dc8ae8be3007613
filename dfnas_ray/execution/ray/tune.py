"""What all experiments with Ray Tune have in common: how one is run, and who proposes within it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.search.optuna import OptunaSearch


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


class StudySearch(OptunaSearch):  # type: ignore[misc]  # Ray has no types here
    """A searcher that is left out of Tune's snapshots: what it knows is kept elsewhere, and never lags behind."""

    def save(self, checkpoint_path: str) -> None:
        """Write nothing that would have to be unpickled."""
        Path(checkpoint_path).write_text("{}\n", encoding="utf-8")
