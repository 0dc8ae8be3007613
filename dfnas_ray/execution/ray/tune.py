"""Running an experiment with Ray Tune."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from ray import tune

from dfnas_ray.errors import DfnasError
from dfnas_ray.execution.ray.errors import out_of_memory, ran_out_of_memory


def fit(
    trainable: Any,
    name: str,
    config: tune.TuneConfig,
    attempts: int,
    param_space: Mapping[str, Any] | None = None,
    callbacks: Sequence[tune.Callback] = (),
) -> tune.ResultGrid:
    """Run all trials to their end, and return the results. Tune's own files are not kept.

    Args:
        trainable: The trainable, with its resources.
        name: The name of the experiment.
        config: The searcher and the scheduler.
        attempts: The attempts for a trial.
        param_space: The settings of the trials, if no searcher proposes them.
        callbacks: Tune's callbacks, called in this process.

    Raises:
        DfnasError: Ray ended a worker to save its node. For Tune this is the end of all trials.
    """
    try:
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
    except RuntimeError as error:
        if not ran_out_of_memory(error):
            raise
        stage = "synthesis" if name == "sweep" else "search"
        raise DfnasError(
            f"A worker of the {stage} stage died: {out_of_memory(stage)}. What is finished is kept; run the same command "
            "again to go on."
        ) from error
