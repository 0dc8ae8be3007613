"""CMA-ES that does not store a pickled state."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import optuna
from optuna._transform import _SearchSpaceTransform
from optuna.distributions import BaseDistribution
from optuna.samplers import CmaEsSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial


class ReplayedCmaEs(CmaEsSampler):
    """CMA-ES whose state is computed again from the trials and their values (Hansen 2016, arXiv:1604.00772).

    Optuna's sampler stores its state pickled in the study and loads it from there. That is not safe, because others may
    be able to write to the study. The state depends only on the trials of each generation, those that finished first,
    so replaying all generations gives the same state.
    """

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return a point of the current generation."""
        self._direction, self._space = study.direction, search_space
        return super().sample_relative(study, trial, search_space)

    def _restore_optimizer(self, completed_trials: list[FrozenTrial]) -> Any:
        """Return the optimiser after all complete generations, so that Optuna has nothing to update or store."""
        unit = _SearchSpaceTransform(self._space, transform_0_1=True)
        optimizer = self._init_optimizer(unit, self._direction)
        sign = 1.0 if self._direction == StudyDirection.MINIMIZE else -1.0
        while True:
            told = sorted(self._get_solution_trials(completed_trials, optimizer.generation), key=_completion)
            told = told[: optimizer.population_size]
            if len(told) < optimizer.population_size:
                return optimizer
            optimizer.tell([(unit.transform(trial.params), sign * _value(trial)) for trial in told])


def _completion(trial: FrozenTrial) -> tuple[datetime, int]:
    assert trial.datetime_complete is not None, "the trials are complete"
    return trial.datetime_complete, trial.number


def _value(trial: FrozenTrial) -> float:
    assert trial.value is not None, "the trials are complete"
    return trial.value
