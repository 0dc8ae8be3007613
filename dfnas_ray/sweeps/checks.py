"""What can be known of a trial before its first step."""

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
"""By setting: which other one decides whether it has an effect, and where that one is when it has none."""

_REGULARIZER = re.compile(r"(synthesis\.regularizers\.\w+)\.(?!weight$)")


def check_settings(
    teacher: Teacher, base: SynthesisConfig, sweep: SweepConfig, parameters: Mapping[str, Parameter]
) -> SynthesisConfig:
    """Return the settings of a trial, after making sure that a run could have them, too: it makes what is best here.

    Args:
        teacher: Whose images are made.
        base: The experiment's settings.
        sweep: The sweep, which fixes some of them for its trials.
        parameters: By dotted path, as Optuna stores them.

    Raises:
        ConfigError: they do not go together, for trials or for a run.
        SynthesisError: they do not suit the teacher.
    """
    settings = sweep.synthesis(base, parameters, fixed=True)
    check_synthesis(teacher, settings, settings.method)
    if sweep.fixed:
        try:
            unfixed = sweep.synthesis(base, parameters, fixed=False)
            check_synthesis(teacher, unfixed, unfixed.method)
        except DfnasError as error:
            raise ConfigError(
                f"Trials could have it with sweep.fixed, but a run with the best settings could not. {error}"
            ) from error
    return settings


def check_effects(sweep: SweepConfig, settings: SynthesisConfig) -> None:
    """Make sure that what is varied has an effect.

    Args:
        sweep: What is varied.
        settings: Those of trials, but for what is varied.

    Raises:
        ConfigError: it has none; says why.
    """
    for path in sweep.settings:
        decisive, idle = _decides(path)
        if decisive is not None and decisive not in sweep.settings and _value(settings, decisive) == idle:
            raise ConfigError(
                f"sweep.settings.{path} has no effect: {decisive} of the trials is {idle}. Raise {decisive}, vary it as "
                f"well, or leave {path} out."
            )


def _decides(path: str) -> tuple[str | None, float | None]:
    """Return which setting decides whether another has an effect, and its value without: a regulariser's weight, say."""
    if term := _REGULARIZER.match(path):
        return f"{term[1]}.weight", 0
    return _IDLE_AT.get(path, (None, None))


def _value(settings: SynthesisConfig, path: str) -> Any:
    """Return a setting's value; None where there is none."""
    found: Any = settings
    for name in path.split(".")[1:]:
        found = getattr(found, name, None)
    return found


def check_objectives(teacher: Teacher, sweep: SweepConfig, settings: SynthesisConfig) -> None:
    """Make sure that images of these settings have a value of each objective, as far as can be known.

    Raises:
        ConfigError: they have none.
    """
    judged = settings.images_per_shard if sweep.pruning is not None else settings.images_in_total
    for name in sweep.objectives:
        objective = OBJECTIVES.find(name)
        if not objective().has_value(teacher, judged):
            raise ConfigError(f"sweep.objectives: {name} has no value for these images: {objective.undefined}.")
