"""Proposals for the settings of a sweep's next trial."""

from __future__ import annotations

import optuna
from optuna.samplers import BaseSampler

from dfnas_ray.config.registry import describe
from dfnas_ray.errors import ConfigError
from dfnas_ray.sweeps.config import SweepConfig


def make_sampler(sweep: SweepConfig, num_trials: int, seed: int) -> BaseSampler:
    """Return the sampler of a sweep.

    Args:
        sweep: The settings of the sweep.
        num_trials: The number of trials when the sweep was started. The number of random first trials and the size of a
            generation depend on it.
        seed: The seed of all random draws.

    Raises:
        ConfigError: it comes from another package and breaks the contract; the message names package, member and rule.
    """
    sampler: object = sweep.sampler.sampler(num_trials, seed % 2**32, sweep)
    if not isinstance(sampler, BaseSampler):
        raise ConfigError(
            f"The sampler {describe(type(sweep.sampler))} breaks its contract: sampler() must return an Optuna sampler, not a "
            f"{type(sampler).__name__}."
        )
    return sampler


def propose(sweep: SweepConfig, trial: optuna.Trial) -> None:
    """Let ``trial`` suggest a parameter for every swept setting, within its range."""
    for path, range_ in sweep.settings.items():
        if range_.categories is not None:
            trial.suggest_categorical(path, list(range_.categories))
        elif range_.is_integer:
            trial.suggest_int(path, *range_.limits, log=range_.is_log)
        else:
            trial.suggest_float(path, *range_.limits, log=range_.is_log)
