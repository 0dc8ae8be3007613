"""A sweep's trials as an Optuna study."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from dfnas_ray.sweeps.config import SweepConfig
from dfnas_ray.sweeps.ranges import Parameter, Range

PREFIX = "synthesis."
"""The prefix that is left out of the names of settings where they are shown."""

_STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "fail": TrialState.FAIL}


class Tried(Protocol):
    """The part of a trial's record that a study needs."""

    @property
    def state(self) -> str:
        """How the trial ended, in Optuna's words."""
        ...

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        """Values by dotted path, as Optuna stores them."""
        ...

    @property
    def values(self) -> Sequence[float] | None:
        """Values of the objectives; None if the trial did not finish."""
        ...


def name_objectives(study: optuna.Study, config: SweepConfig) -> None:
    """Name the study's values after the objectives, for plots and the dashboard."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names(list(config.objectives))


def study_from(trials: Iterable[Tried], config: SweepConfig) -> optuna.Study:
    """Return an Optuna study in memory with these trials; the names of their settings are without the common prefix.

    Raises:
        ValueError: a setting of a trial is outside its range, or a value is missing.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=config.directions)
    name_objectives(study, config)
    distributions = {path.removeprefix(PREFIX): distribution_of(range_) for path, range_ in config.settings.items()}
    for trial in trials:
        state = _STATES.get(trial.state)
        if state is None:
            continue
        study.add_trial(
            create_trial(
                state=state,
                values=trial.values if state is TrialState.COMPLETE else None,
                params={path.removeprefix(PREFIX): value for path, value in trial.parameters.items()},
                distributions={
                    name: distributions[name] for name in distributions if PREFIX + name in trial.parameters
                },
            )
        )
    return study


def distribution_of(range_: Range) -> BaseDistribution:
    """Return the Optuna distribution of a range."""
    if range_.categories is not None:
        return CategoricalDistribution(list(range_.categories))
    low, high = range_.limits
    kind = IntDistribution if range_.is_integer else FloatDistribution
    return kind(low, high, range_.is_log)
