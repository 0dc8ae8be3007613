"""Checks of a sweep and its trials before the first step."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from dfnas_ray.errors import ConfigError, DfnasError
from dfnas_ray.sweeps.config import SweepConfig
from dfnas_ray.sweeps.objectives import OBJECTIVES
from dfnas_ray.sweeps.ranges import Parameter
from dfnas_ray.synthesis.checks import check_synthesis
from dfnas_ray.synthesis.config import SynthesisConfig
from dfnas_ray.teachers.base import Teacher

_ROUNDS = "synthesis.method.rounds"
_IDLE_AT = {"synthesis.method.tau": (_ROUNDS, 1), "synthesis.method.keep": (_ROUNDS, 1)}
"""For a setting, the other setting that decides whether it has an effect, and the value at which it has none."""

_REGULARIZER = re.compile(r"(synthesis\.regularizers\.\w+)\.(?!weight$)")


def check_settings(
    teacher: Teacher, base: SynthesisConfig, sweep: SweepConfig, parameters: Mapping[str, Parameter]
) -> SynthesisConfig:
    """Return the settings of a trial, after making sure that a run can use them, too.

    Args:
        teacher: The teacher for which images are made.
        base: The experiment's settings.
        sweep: The sweep, which fixes some settings for its trials.
        parameters: Values by dotted path, as Optuna stores them.

    Raises:
        ConfigError: the settings contradict each other, for trials or for a run.
        SynthesisError: the settings do not suit the teacher.
    """
    settings = sweep.synthesis(base, parameters, fixed=True)
    check_synthesis(teacher, settings, settings.method)
    if sweep.fixed:
        try:
            unfixed = sweep.synthesis(base, parameters, fixed=False)
            check_synthesis(teacher, unfixed, unfixed.method)
        except DfnasError as error:
            raise ConfigError(
                f"Trials could use this with sweep.fixed, but a run with the best settings could not. {error}"
            ) from error
    return settings


def check_effects(sweep: SweepConfig, settings: SynthesisConfig) -> None:
    """Make sure that every varied setting has an effect.

    Args:
        sweep: The sweep, with the varied settings.
        settings: The settings of the trials, without the varied values.

    Raises:
        ConfigError: a setting has no effect; the message says why.
    """
    for path in sweep.settings:
        decisive, idle = _decides(path)
        if decisive is not None and decisive not in sweep.settings and _value(settings, decisive) == idle:
            raise ConfigError(
                f"sweep.settings.{path} has no effect: {decisive} of the trials is {idle}. Raise {decisive}, vary it, too, "
                f"or leave {path} out."
            )


def _decides(path: str) -> tuple[str | None, float | None]:
    """Return the setting that decides whether ``path`` has an effect, such as a weight, and its value without it."""
    if term := _REGULARIZER.match(path):
        return f"{term[1]}.weight", 0
    return _IDLE_AT.get(path, (None, None))


def _value(settings: SynthesisConfig, path: str) -> Any:
    """Return the value of a setting; None if it does not exist."""
    found: Any = settings
    for name in path.split(".")[1:]:
        found = getattr(found, name, None)
    return found


def check_objectives(teacher: Teacher, sweep: SweepConfig, settings: SynthesisConfig) -> None:
    """Make sure that images of these settings have a value of each objective, as far as this is known in advance.

    Raises:
        ConfigError: an objective has no value.
    """
    judged = settings.images_per_shard if sweep.pruning is not None else settings.images_in_total
    for name in sweep.objectives:
        objective = OBJECTIVES.find(name)
        if not objective().has_value(teacher, judged):
            raise ConfigError(f"sweep.objectives: {name} has no value for these images: {objective.undefined}.")
