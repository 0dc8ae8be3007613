"""Settings of a sweep: the varied synthesis settings, the sampler, and the objectives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dfnas_ray.config.dotted import set_dotted
from dfnas_ray.config.member import Name
from dfnas_ray.config.registry import SettingValues, UnknownKindError
from dfnas_ray.datasets import DatasetConfig
from dfnas_ray.errors import ConfigError
from dfnas_ray.limits import MANY, MAX_SWEPT, SEVERAL
from dfnas_ray.sweeps.objectives import OBJECTIVES, Direction
from dfnas_ray.sweeps.ranges import Parameter, Range
from dfnas_ray.sweeps.sampler_configs import Sampler, TpeConfig
from dfnas_ray.synthesis.config import SynthesisConfig
from dfnas_ray.teachers import TeacherConfig
from dfnas_ray.training.config import OptimizerConfig


class PruningConfig(BaseModel):
    """ASHA (Li et al. 2020, arXiv:1810.05934): trials whose first rounds look weak are stopped.

    Rounds of label calibration are counted over all shards of a trial: with 2 rounds in each of 3 shards, a trial has
    6. Trials are compared after ``min_rounds`` rounds, then after ``reduction_factor`` times as many, and so on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_rounds: int = Field(1, gt=0, le=MANY, description="Rounds that every trial makes, counted over its shards.")
    reduction_factor: int = Field(3, gt=1, le=MANY, description="One of this many trials continues at each rung.")

    def has_rung(self, after: int, until: int) -> bool:
        """Return whether a rung, at which trials are compared, is above ``after`` and at most ``until`` rounds."""
        rung = self.min_rounds
        while rung <= after:
            rung *= self.reduction_factor
        return rung <= until


class StudentConfig(BaseModel):
    """The short training of the student for the student proxy."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(600, gt=0, le=MANY, description="Optimiser steps: the same work for every trial.")
    batch_size: int = Field(64, gt=0, le=MANY, description="Images per step.")
    optimizer: OptimizerConfig = OptimizerConfig()


class ReferenceConfig(BaseModel):
    """Images of reference settings, spread over the ranges, on which every trial's student is examined."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: int = Field(
        8, gt=1, le=SEVERAL, description="Number of reference settings, a Latin hypercube over the ranges."
    )
    images: int = Field(
        100, gt=0, le=MANY, description="Images of each reference setting, from the last calibration round."
    )
    share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Share of the reference settings that is used: those nearest the teacher's BatchNorm statistics.",
    )


class SweepConfig(BaseModel):
    """Tuning of synthesis settings with Optuna, on objectives that need no real data."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: dict[str, Range] = Field(
        min_length=1,
        max_length=MAX_SWEPT,
        description="Dotted path of each varied setting, such as synthesis.method.tau, and its range.",
    )
    fixed: SettingValues = Field(
        default_factory=dict, description="Settings of the trials alone, such as synthesis.num_shards: 1, to save time."
    )
    objectives: tuple[Annotated[str, Name(OBJECTIVES, is_checked=False)], ...] = Field(
        ("student_proxy",),
        min_length=1,
        description=f"What judges trials: one or several of {', '.join(OBJECTIVES.built_in)}.",
    )
    sampler: Sampler = Field(TpeConfig(), description="The sampler, which proposes settings.")
    trials: int = Field(
        32, gt=0, le=MANY, description="Number of trials; the sampler grid always tries the whole grid."
    )
    concurrency: int | None = Field(
        None, gt=0, le=SEVERAL, description="Trials at the same time; by default as many as fit the cluster."
    )
    pruning: PruningConfig | None = Field(None, description="Stops weak trials after their first rounds.")
    student: StudentConfig = StudentConfig()
    reference: ReferenceConfig = ReferenceConfig()
    verifier: TeacherConfig | None = Field(
        None, description="A second, independent classifier for the objective verifier_agreement. Not data-free."
    )
    labelled: DatasetConfig | None = Field(
        None, description="Labelled real images for the objective labelled_accuracy. Not data-free."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in self.objectives:
            try:
                OBJECTIVES.find(name)
            except UnknownKindError as error:
                hint = f" Did you mean {error.nearest}?" if error.nearest else ""
                kinds = ", ".join(error.kinds)
                raise ValueError(f"objectives: {name!r} does not exist. It must be one of {kinds}.{hint}") from error
            except ConfigError as error:
                raise ValueError(f"objectives: {error}") from error
        if len(set(self.objectives)) < len(self.objectives):
            raise ValueError(f"objectives {list(self.objectives)} must be different from each other.")
        for name in self.objectives:
            needed = OBJECTIVES.find(name).needs
            if needed is not None and getattr(self, needed) is None:
                raise ValueError(f"the objective {name} needs sweep.{needed}.")
        for path in [*self.settings, *self.fixed]:
            if not path.startswith("synthesis."):
                raise ValueError(
                    f"{path} cannot be swept: the objectives judge synthetic images, so only settings below synthesis "
                    "change them."
                )
        both = sorted(set(self.settings) & set(self.fixed))
        if both:
            raise ValueError(f"{both[0]} is both in settings and in fixed. Keep one.")
        self.sampler.check(self)
        if len(self.objectives) > 1 and self.pruning is not None:
            raise ValueError("pruning needs a single objective to compare by. Remove pruning, or name one objective.")
        return self

    @property
    def num_trials(self) -> int:
        """The total number of trials."""
        return self.sampler.num_trials(self)

    def synthesis(self, base: SynthesisConfig, parameters: Mapping[str, Parameter], fixed: bool) -> SynthesisConfig:
        """Return the synthesis settings of one trial, or those of a run.

        Args:
            base: The experiment's settings.
            parameters: Values by dotted path, as Optuna stores them.
            fixed: Whether the settings that are fixed for trials apply; False for a run.

        Raises:
            ConfigError: these settings contradict each other.
        """
        values: SettingValues = {"synthesis": base.model_dump()}
        changes = {path: self.settings[path].value(parameter) for path, parameter in parameters.items()}
        for path, value in {**(self.fixed if fixed else {}), **changes}.items():
            values = set_dotted(values, path, value, f"sweep.settings.{path}")
        try:
            return SynthesisConfig.model_validate(values["synthesis"])
        except ValidationError as error:
            reason = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise ConfigError(f"These settings do not go together: {reason}") from error

    def most_rounds(self, base: SynthesisConfig) -> int:
        """Return the largest number of rounds of a trial, over all its shards."""

        def most(path: str, count: Callable[[SynthesisConfig], int]) -> int:
            range_ = self.settings.get(path)
            choices = [{}] if range_ is None else [{path: value} for value in range_.categories or range_.limits]
            return max(count(self.synthesis(base, choice, fixed=True)) for choice in choices)

        shards = most("synthesis.num_shards", lambda trial: trial.num_shards)
        return shards * most("synthesis.method.rounds", lambda trial: trial.method.num_rounds)

    @property
    def directions(self) -> list[Direction]:
        """``maximize`` or ``minimize`` for each objective."""
        return [OBJECTIVES.find(name).direction for name in self.objectives]

    @property
    def is_data_free(self) -> bool:
        """Whether no objective needs real data."""
        return all(OBJECTIVES.find(name).is_data_free for name in self.objectives)
