"""What can be known of a trial before its first step."""

from __future__ import annotations

from collections.abc import Mapping

from dfnas_ray.errors import ConfigError, DfnasError
from dfnas_ray.sweeps.config import SweepConfig
from dfnas_ray.sweeps.objectives import OBJECTIVES
from dfnas_ray.sweeps.ranges import Parameter
from dfnas_ray.synthesis.checks import check_synthesis
from dfnas_ray.synthesis.config import SynthesisConfig
from dfnas_ray.teachers.base import Teacher

_ROUNDS = "synthesis.rounds"
_BN_WEIGHT = "synthesis.regularizers.bn_statistics.weight"
_IDLE_AT = {
    "synthesis.tau": (_ROUNDS, 1),
    "synthesis.keep": (_ROUNDS, 1),
    "synthesis.regularizers.bn_statistics.first_layer_multiplier": (_BN_WEIGHT, 0),
}
"""By setting: which other one decides whether it has an effect, and where that one is when it has none."""


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
    check_synthesis(teacher, settings)
    if sweep.fixed:
        try:
            check_synthesis(teacher, sweep.synthesis(base, parameters, fixed=False))
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
    values = {_ROUNDS: settings.rounds, _BN_WEIGHT: settings.regularizers.bn_statistics.weight}
    for path in sweep.settings:
        decisive, idle = _IDLE_AT.get(path, (None, None))
        if decisive is not None and decisive not in sweep.settings and values[decisive] == idle:
            raise ConfigError(
                f"sweep.settings.{path} has no effect: {decisive} of the trials is {idle}. Raise {decisive}, vary it as "
                f"well, or leave {path} out."
            )


def check_objectives(teacher: Teacher, sweep: SweepConfig, settings: SynthesisConfig) -> None:
    """Make sure that images of these settings have a value of each objective, as far as can be known.

    Raises:
        ConfigError: they have none.
    """
    judged = settings.images_per_shard if sweep.pruning is not None else settings.images_in_total
    unknown = {
        "domain_gap": not teacher.batch_norms(),
        "diversity": judged < 2 * teacher.num_classes,
    }
    for name in sweep.objectives:
        if unknown.get(name):
            raise ConfigError(f"sweep.objectives: {name} has no value for these images: {OBJECTIVES[name].undefined}.")
