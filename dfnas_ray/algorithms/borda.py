"""Two votes on every candidate: by supernets trained on the images, and by figures of untrained networks.

The two votes make different errors. Each vote ranks the candidates, and a candidate's score is the mean of its two
ranks (a Borda count: Dwork et al. 2001, WWW 10). Results are in experiments/results/question.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal, TypeAlias

import numpy as np
import scipy  # its modules are imported when they are first used
import torch
from pydantic import Field, model_validator

from dfnas_ray.algorithms.base import SCORE, BaseAlgorithmConfig, Measurement, SearchProblem, StateDict
from dfnas_ray.algorithms.evolution import EvolutionConfig, RelativeSearch
from dfnas_ray.algorithms.one_shot import Fitness, OneShotScorer
from dfnas_ray.algorithms.spos import Spos, SposConfig
from dfnas_ray.algorithms.zero_cost.proxies import PROXIES
from dfnas_ray.algorithms.zero_cost.search import ZeroCost, ZeroCostConfig, ZeroCostScorer
from dfnas_ray.config.member import Name
from dfnas_ray.limits import MANY
from dfnas_ray.search_spaces.base import Genotype
from dfnas_ray.seeding import derive_seed
from dfnas_ray.training.config import OptimizerConfig

_SUPERNET = "supernet_{}"

Places: TypeAlias = np.ndarray[tuple[int], np.dtype[np.float64]]
"""Ranks (N,), scaled to (0, 1]; 1 is the best."""


class BordaConfig(BaseAlgorithmConfig):
    """Supernets and training-free figures, each with one vote."""

    kind: Literal["borda"] = "borda"
    supernets: int = Field(
        3, gt=0, le=20, description="Number of supernets, trained one after the other; their ranks are averaged."
    )
    epochs: int = Field(60, gt=0, le=MANY, description="Passes over the training images for each supernet.")
    batch_size: int = Field(128, gt=1, le=MANY, description="Images per step.")
    optimizer: OptimizerConfig = OptimizerConfig()
    calibration_batches: int = Field(
        8, gt=0, le=MANY, description="Number of batches from which BatchNorm statistics are re-estimated."
    )
    fitness: Fitness = Field("distillation_loss", description="The score by which a supernet ranks candidates.")
    proxies: tuple[Annotated[str, Name(PROXIES)], ...] = Field(
        ("az_nas", "synflow", "naswot", "zico"),
        min_length=1,
        description="The training-free proxies; with several, their ranks are added up, as in zero_cost.",
    )
    batches: int = Field(2, gt=1, le=MANY, description="Number of batches for the training-free proxies.")
    evolution: EvolutionConfig = EvolutionConfig()

    trains_by_epochs: ClassVar[bool] = True
    search_settings: ClassVar[frozenset[str]] = frozenset({"evolution"})
    keeps_min_macs: ClassVar[bool] = True

    @model_validator(mode="after")
    def _check(self) -> BordaConfig:
        _ = self.zero_cost
        return self

    @property
    def spos(self) -> SposConfig:
        """The settings of one supernet."""
        return SposConfig(
            epochs=self.epochs, batch_size=self.batch_size, optimizer=self.optimizer,
            calibration_batches=self.calibration_batches, fitness=self.fitness, evolution=self.evolution,
        )  # fmt: skip

    @property
    def zero_cost(self) -> ZeroCostConfig:
        """The settings of the training-free figures."""
        return ZeroCostConfig(
            proxies=self.proxies, batch_size=self.batch_size, batches=self.batches, evolution=self.evolution
        )

    @property
    def figures(self) -> tuple[str, ...]:
        """See `RankingFeatures`."""
        return (*(_SUPERNET.format(number) for number in range(self.supernets)), *self.zero_cost.figures)

    @property
    def steps_to_show(self) -> int:
        """The length of the progress bar, in epochs and generations."""
        return self.supernets * self.epochs + self.evolution.generations

    @property
    def num_candidates(self) -> int:
        """See `PlanningFeatures`."""
        return self.evolution.num_candidates

    def images_per_candidate(self, train: int, validation: int) -> float:
        """See `PlanningFeatures`: the images of all supernets; training-free figures need few."""
        return self.supernets * self.spos.images_per_candidate(train, validation)

    def algorithm(self, problem: SearchProblem) -> Borda:
        """Return the algorithm, ready to run."""
        return Borda(self, problem)


@dataclass
class BordaScorer:
    """Measures candidates with every supernet and without training.

    Attributes:
        supernets: One scorer per supernet.
        untrained: The scorer of the training-free figures.
    """

    supernets: list[OneShotScorer]
    untrained: ZeroCostScorer

    def __call__(self, genotypes: Sequence[Genotype]) -> list[Measurement]:
        """Return each genotype's figures."""
        measured = self.untrained(genotypes)
        for number, scorer in enumerate(self.supernets):
            for own, score in zip(measured, scorer(genotypes), strict=True):
                own[_SUPERNET.format(number)] = score[SCORE]
        return measured

    def to(self, device: torch.device) -> None:
        """Move everything to a device."""
        self.untrained.to(device)
        for scorer in self.supernets:
            scorer.to(device)


class Borda(RelativeSearch):
    """Trains the supernets one after the other, then runs evolution on both votes."""

    def __init__(self, config: BordaConfig, problem: SearchProblem):
        super().__init__(config.evolution, problem)
        self.config = config
        self.num_epochs = config.supernets * config.epochs
        self.supernets = [
            Spos(config.spos, replace(problem, seed=derive_seed(problem.seed, "supernet", number)))
            for number in range(config.supernets)
        ]
        self.untrained = ZeroCost(config.zero_cost, problem)

    def train_epoch(self) -> dict[str, float]:
        """Train the next unfinished supernet for one epoch, and return its metrics."""
        metrics = self.supernets[self.epochs_done // self.config.epochs].train_epoch()
        self.epochs_done += 1
        return metrics

    def rank(self, measurements: Sequence[Measurement]) -> list[float]:
        """Return the mean of two ranks in (0, 1], one by the supernets and one without training; 1 is the best."""
        names = [_SUPERNET.format(number) for number in range(self.config.supernets)]
        each = np.stack([places([one[name] for one in measurements]) for name in names])
        trained = places(each.sum(0).tolist())
        untrained = places(self.untrained.rank(measurements))
        scores: list[float] = ((trained + untrained) / 2).tolist()
        return scores

    def scorer(self) -> BordaScorer:
        """Return a scorer with copies of the current supernets."""
        return BordaScorer([supernet.scorer() for supernet in self.supernets], self.untrained.scorer())

    def state_dict(self) -> StateDict:
        """Return the state as tensors, numbers and text only."""
        supernets = [supernet.state_dict() for supernet in self.supernets]
        return {**super().state_dict(), "epochs_done": self.epochs_done, "supernets": supernets}

    def load_state_dict(self, state: StateDict) -> None:
        """Resume exactly where ``state_dict`` was called."""
        super().load_state_dict(state)
        self.epochs_done = state["epochs_done"]
        for supernet, own in zip(self.supernets, state["supernets"], strict=True):
            supernet.load_state_dict(own)


def places(values: Sequence[float]) -> Places:
    """Return each value's rank over the number of values, (N,): 1 is highest, NaN is lowest, ties share a mean rank."""
    array = np.nan_to_num(np.asarray(values, np.float64), nan=-np.inf)
    ranks: Places = scipy.stats.rankdata(array) / len(array)
    return ranks
