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
    one_round = {"synthesis.rounds": settings.rounds == 1}
    weight = "synthesis.regularizers.bn_statistics.weight"
    needs = {
        "synthesis.tau": one_round,
        "synthesis.keep": one_round,
        "synthesis.regularizers.bn_statistics.first_layer_multiplier": {
            weight: settings.regularizers.bn_statistics.weight == 0
        },
    }
    for path in sweep.settings:
        for decisive, is_off in needs.get(path, {}).items():
            if is_off and decisive not in sweep.settings:
                raise ConfigError(
                    f"sweep.settings.{path} has no effect: {decisive} of the trials is {1 if 'rounds' in decisive else 0}. "
                    f"Raise {decisive}, vary it as well, or leave {path} out."
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
