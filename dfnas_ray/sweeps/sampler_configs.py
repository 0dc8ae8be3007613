"""The contract of a sampler, which proposes the settings of a sweep's next trial, and the samplers of this package by name."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Protocol

from dfnas_ray.config.member import MemberConfig
from dfnas_ray.config.registry import Family
from dfnas_ray.limits import SEVERAL

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from dfnas_ray.sweeps.ranges import Range


class Swept(Protocol):
    """The part of a `SweepConfig` that a sampler may use.

    Attributes:
        settings: The range of each varied setting, by its dotted path.
        objectives: The names of the objectives.
        trials: The number of trials that is set.
    """

    @property
    def settings(self) -> Mapping[str, Range]: ...  # noqa: D102
    @property
    def objectives(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def trials(self) -> int: ...  # noqa: D102


class SamplerConfig(MemberConfig):
    """The settings that all samplers share.

    Attributes:
        kind: The name of the sampler in experiment files; each sampler defines its own as a field.
    """

    if TYPE_CHECKING:
        kind: str

    is_exhaustive: ClassVar[bool] = False
    """Whether the sweep tries every point of the grid of its ranges, instead of ``trials`` proposals."""

    @abstractmethod
    def sampler(self, num_trials: int, seed: int, sweep: Swept) -> BaseSampler:
        """Return the sampler for the next trial. Each trial gets a new one, which learns from the study.

        Args:
            num_trials: The number of trials when the sweep was started.
            seed: The seed of this trial's draws.
            sweep: The settings of the sweep.
        """

    def check(self, sweep: Swept) -> None:
        """Make sure that the sampler supports the settings and objectives of a sweep.

        Raises:
            ValueError: it does not; the message says what to use instead.
        """

    def num_trials(self, sweep: Swept) -> int:
        """Return the total number of trials."""
        return sweep.trials


class TpeConfig(SamplerConfig):
    """Tree-structured Parzen estimators: Bergstra et al. 2011, NeurIPS."""

    kind: Literal["tpe"] = "tpe"

    def sampler(self, num_trials: int, seed: int, sweep: Swept) -> BaseSampler:
        """Return Optuna's TPE sampler."""
        from dfnas_ray.algorithms.proposals import num_startup_trials, tpe_sampler

        return tpe_sampler(seed, num_startup_trials(num_trials))


class Nsga2Config(SamplerConfig):
    """The evolutionary NSGA-II for several objectives: Deb et al. 2002."""

    kind: Literal["nsga2"] = "nsga2"

    def sampler(self, num_trials: int, seed: int, sweep: Swept) -> BaseSampler:
        """Return Optuna's NSGA-II sampler, with a quarter of the trials in each generation."""
        from optuna.samplers import NSGAIISampler

        return NSGAIISampler(seed=seed, population_size=max(4, num_trials // 4))


class CmaEsConfig(SamplerConfig):
    """CMA-ES: Hansen 2016, arXiv:1604.00772."""

    kind: Literal["cmaes"] = "cmaes"

    def sampler(self, num_trials: int, seed: int, sweep: Swept) -> BaseSampler:
        """Return a CMA-ES sampler that unpickles nothing."""
        from dfnas_ray.algorithms.proposals import num_startup_trials
        from dfnas_ray.sweeps.replayed_cmaes import ReplayedCmaEs

        return ReplayedCmaEs(seed=seed, n_startup_trials=num_startup_trials(num_trials))

    def check(self, sweep: Swept) -> None:
        """Refuse several objectives, and settings that are not numbers."""
        if len(sweep.objectives) > 1:
            raise ValueError("sampler cmaes supports only one objective. Use tpe or nsga2, or name one objective.")
        if any(range_.choice is not None for range_ in sweep.settings.values()):
            raise ValueError("sampler cmaes varies numbers only. Use tpe for settings with choice.")


class RandomConfig(SamplerConfig):
    """Settings drawn at random."""

    kind: Literal["random"] = "random"

    def sampler(self, num_trials: int, seed: int, sweep: Swept) -> BaseSampler:
        """Return Optuna's random sampler."""
        from optuna.samplers import RandomSampler

        return RandomSampler(seed=seed)


class GridConfig(SamplerConfig):
    """Every point of the grid. The whole grid is put into the queue at once."""

    kind: Literal["grid"] = "grid"
    is_exhaustive: ClassVar[bool] = True

    def sampler(self, num_trials: int, seed: int, sweep: Swept) -> BaseSampler:
        """Return a random sampler, which is never used."""
        return RandomConfig().sampler(num_trials, seed, sweep)

    def check(self, sweep: Swept) -> None:
        """Refuse ranges whose values cannot be listed."""
        for path, range_ in sweep.settings.items():
            if range_.grid_size is None:
                raise ValueError(
                    f"sampler grid needs values that can be listed, and settings.{path} is {range_.form}. "
                    "Give choice or integer, or take another sampler."
                )
        if (number := self.num_trials(sweep)) > SEVERAL:
            raise ValueError(
                f"sampler grid would try all {number:,} combinations of sweep.settings; at most {SEVERAL:,} are allowed. "
                "Narrow the ranges, or use another sampler, which tries sweep.trials of them."
            )

    def num_trials(self, sweep: Swept) -> int:
        """Return the number of points."""
        return math.prod(range_.grid_size or 0 for range_ in sweep.settings.values())


SAMPLERS: Family[SamplerConfig] = Family(
    "sampler",
    SamplerConfig,  # type: ignore[type-abstract]  # only its members are made
    {
        "tpe": "dfnas_ray.sweeps.sampler_configs:TpeConfig",
        "nsga2": "dfnas_ray.sweeps.sampler_configs:Nsga2Config",
        "cmaes": "dfnas_ray.sweeps.sampler_configs:CmaEsConfig",
        "random": "dfnas_ray.sweeps.sampler_configs:RandomConfig",
        "grid": "dfnas_ray.sweeps.sampler_configs:GridConfig",
    },
    by_name=True,
)
"""Every sampler by its kind."""

Sampler = Annotated[SamplerConfig, SAMPLERS]
