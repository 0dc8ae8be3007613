"""The decision to prune a trial of a sweep, from the content of the study on disk alone.

Optuna's own pruner stores its decisions beside the values and does not decide twice. If a command was interrupted
between the decision and the end of the trial, the trial would continue. Source: Li et al. 2020, arXiv:1810.05934.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from optuna.trial import FrozenTrial

from dfnas_ray.sweeps.config import PruningConfig


def is_weak(pruning: PruningConfig, direction: str, trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> bool:
    """Return whether a trial is not among the best ``1 / reduction_factor`` at the last rung that it reached.

    Args:
        pruning: The settings of the rungs.
        direction: "minimize" or "maximize".
        trial: The running trial.
        trials: All trials of the study; those with a smaller number compete with ``trial``.
    """
    if not trial.intermediate_values:
        return False
    rung = max(trial.intermediate_values)
    if not pruning.has_rung(rung - 1, rung):
        return False
    value = trial.intermediate_values[rung]
    if math.isnan(value):
        return True
    sign = -1.0 if direction == "maximize" else 1.0
    shown = [other.intermediate_values.get(rung, math.nan) for other in trials if other.number < trial.number]
    competing = sorted(sign * each for each in [*shown, value] if not math.isnan(each))
    return sign * value > competing[max(1, len(competing) // pruning.reduction_factor) - 1]
