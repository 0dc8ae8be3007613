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
    """What a sampler may know of a sweep: `SweepConfig`.

    Attributes:
        settings: The range of each varied setting, by its dotted path.
        objectives: What decides.
        trials: How many are asked for.
    """

    @property
    def settings(self) -> Mapping[str, Range]: ...  # noqa: D102
    @property
    def objectives(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def trials(self) -> int: ...  # noqa: D102


class SamplerConfig(MemberConfig):
    """What the settings of all samplers have in common.

    Attributes:
        kind: The name of the sampler in experiment files; each sampler defines its own as a field.
    """

    if TYPE_CHECKING:
        kind: str

    is_exhaustive: ClassVar[bool] = False
    """Whether the sweep tries every point of the grid that its ranges make, instead of ``trials`` proposals."""

    @abstractmethod
    def sampler(self, num_trials: int, seed: int, sweep: Swept) -> BaseSampler:
        """Return the sampler for the next trial; one is made for each, from what the study holds.

        Args:
            num_trials: That the sweep was begun with.
            seed: Of this trial's draws.
            sweep: What is varied.
        """

    def check(self, sweep: Swept) -> None:
        """Make sure that the sampler can propose such settings for such objectives.

        Raises:
            ValueError: it cannot; says what could.
        """

    def num_trials(self, sweep: Swept) -> int:
        """Return how many trials there are in all."""
        return sweep.trials


class TpeConfig(SamplerConfig):
    """Tree-structured Parzen estimators: Bergstra et al. 2011, NeurIPS."""

    kind: Literal["tpe"] = "tpe"

    def sampler(self, num_trials: int, seed: int, sweep: Swept) -> BaseSampler:
        """Return Optuna's."""
        from dfnas_ray.algorithms.proposals import num_startup_trials, tpe_sampler

        return tpe_sampler(seed, num_startup_trials(num_trials))


class Nsga2Config(SamplerConfig):
    """The evolutionary NSGA-II for several objectives: Deb et al. 2002."""

    kind: Literal["nsga2"] = "nsga2"

    def sampler(self, num_trials: int, seed: int, sweep: Swept) -> BaseSampler:
        """Return Optuna's, with a generation of a quarter of the trials."""
        from optuna.samplers import NSGAIISampler

        return NSGAIISampler(seed=seed, population_size=max(4, num_trials // 4))


class CmaEsConfig(SamplerConfig):
    """CMA-ES: Hansen 2016, arXiv:1604.00772."""

    kind: Literal["cmaes"] = "cmaes"

    def sampler(self, num_trials: int, seed: int, sweep: Swept) -> BaseSampler:
        """Return the one that unpickles nothing."""
        from dfnas_ray.algorithms.proposals import num_startup_trials
        from dfnas_ray.sweeps.replayed_cmaes import ReplayedCmaEs

        return ReplayedCmaEs(seed=seed, n_startup_trials=num_startup_trials(num_trials))

    def check(self, sweep: Swept) -> None:
        """Refuse several objectives, and settings that are no numbers."""
        if len(sweep.objectives) > 1:
            raise ValueError("sampler cmaes knows a single objective. Take tpe or nsga2, or one objective.")
        if any(range_.choice is not None for range_ in sweep.settings.values()):
            raise ValueError("sampler cmaes varies numbers only. Take tpe for settings with choice.")


class RandomConfig(SamplerConfig):
    """Settings drawn at random."""

    kind: Literal["random"] = "random"

    def sampler(self, num_trials: int, seed: int, sweep: Swept) -> BaseSampler:
        """Return Optuna's."""
        from optuna.samplers import RandomSampler

        return RandomSampler(seed=seed)


class GridConfig(SamplerConfig):
    """Every point of the grid; it is enqueued whole, and nothing is left to propose."""

    kind: Literal["grid"] = "grid"
    is_exhaustive: ClassVar[bool] = True

    def sampler(self, num_trials: int, seed: int, sweep: Swept) -> BaseSampler:
        """Return one that is never asked."""
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
                f"sampler grid would try all {number:,} combinations of sweep.settings; at most {SEVERAL:,} are taken. Narrow "
                "the ranges, or take another sampler, which tries as many as trials says."
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
