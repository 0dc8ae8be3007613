"""Who proposes the settings of a sweep's next trial."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import optuna
from optuna._transform import _SearchSpaceTransform
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from dfnas_ray.config.registry import describe
from dfnas_ray.errors import ConfigError
from dfnas_ray.sweeps.config import SweepConfig


def make_sampler(sweep: SweepConfig, num_trials: int, seed: int) -> BaseSampler:
    """Return the sampler that a sweep asks for; a grid is enqueued whole, and needs none.

    Args:
        sweep: The sweep.
        num_trials: That it was begun with: how many are drawn at random, and how large a generation is, depends on it.
        seed: Of all draws.

    Raises:
        ConfigError: it is of another package, and does not keep the contract; names package, member and rule.
    """
    sampler: object = sweep.sampler.sampler(num_trials, seed % 2**32, sweep)
    if not isinstance(sampler, BaseSampler):
        raise ConfigError(
            f"The sampler {describe(type(sweep.sampler))} breaks its contract: sampler() must return an Optuna sampler, not a "
            f"{type(sampler).__name__}."
        )
    return sampler


def num_startup_trials(num_trials: int) -> int:
    """Return how many trials of so many are drawn at random before a sampler learns from them."""
    return min(10, max(4, num_trials // 3))


def tpe_sampler(seed: int, startup: int) -> TPESampler:
    """Return a sampler that takes trials under way for bad ones, so that it does not propose their like again."""
    return TPESampler(seed=seed % 2**32, n_startup_trials=startup, multivariate=True, constant_liar=True)


class ReplayedCmaEs(CmaEsSampler):
    """CMA-ES whose state is computed anew from the trials and their figures (Hansen 2016, arXiv:1604.00772).

    Optuna's keeps its state pickled in the study and loads it from there, and a study lies where others may write. It
    depends on nothing but what each generation was told - its trials that were complete first - so telling all of them
    again gives the same state.
    """

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Propose a point of the present generation."""
        self._direction, self._space = study.direction, search_space
        return super().sample_relative(study, trial, search_space)

    def _restore_optimizer(self, completed_trials: list[FrozenTrial]) -> Any:
        """Return the state after all generations that are whole; nothing is left for Optuna to tell and to store."""
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


def propose(sweep: SweepConfig, trial: optuna.Trial) -> None:
    """Give ``trial`` a parameter for every swept setting, within its range."""
    for path, range_ in sweep.settings.items():
        if range_.categories is not None:
            trial.suggest_categorical(path, list(range_.categories))
        elif range_.is_integer:
            trial.suggest_int(path, *range_.limits, log=range_.is_log)
        else:
            trial.suggest_float(path, *range_.limits, log=range_.is_log)
