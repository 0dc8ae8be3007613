"""Random search: architectures drawn uniformly, each trained alone for a short while.

The baseline that every search has to beat: Li & Talwalkar 2019, arXiv:1902.07638.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from dfnas_ray.algorithms.base import (
    SCORE,
    BaseAlgorithmConfig,
    Measurement,
    SearchAlgorithm,
    SearchProblem,
    StateDict,
)
from dfnas_ray.algorithms.stand_alone import StandAloneScorer
from dfnas_ray.errors import GenotypeError
from dfnas_ray.limits import MANY
from dfnas_ray.search_spaces.base import Genotype, SearchSpace
from dfnas_ray.seeding import numpy_generator
from dfnas_ray.training.config import OptimizerConfig

_MAX_TRIES = 200  # draws per new candidate; a small space may have no new ones left


def draw_new(
    space: SearchSpace,
    rng: np.random.Generator,
    max_macs: int | None,
    count: int,
    known: Collection[Genotype] = (),
    min_macs: int | None = None,
) -> list[Genotype]:
    """Draw ``count`` different architectures uniformly within the limits, none of them ``known``.

    Returns:
        Fewer, or none, if almost all architectures within the limits are known.
    """
    drawn: dict[Genotype, None] = {}
    for _ in range(_MAX_TRIES * count):
        if len(drawn) >= count:
            break
        genotype = space.sample_within(rng, max_macs, min_macs)
        if genotype not in known:
            drawn[genotype] = None
    return list(drawn)


class RandomSearchConfig(BaseAlgorithmConfig):
    """Architectures drawn uniformly within the limit, each trained alone."""

    kind: Literal["random_search"] = "random_search"
    candidates: int = Field(20, gt=0, le=MANY, description="Architectures drawn, all different.")
    round_size: int = Field(4, gt=0, le=MANY, description="Candidates scored between two checkpoints.")
    epochs: int = Field(5, gt=0, le=MANY, description="Passes over the synthetic training images for each candidate.")
    batch_size: int = Field(128, gt=0, le=MANY, description="Images per step.")
    optimizer: OptimizerConfig = OptimizerConfig()

    search_settings: ClassVar[frozenset[str]] = frozenset({"candidates", "round_size"})
    keeps_min_macs: ClassVar[bool] = True

    @property
    def figures(self) -> tuple[str, ...]:
        """See `RankingFeatures`."""
        return (SCORE,)

    @property
    def steps_to_show(self) -> int:
        """The length of the progress bar, in rounds."""
        return -(-self.candidates // self.round_size)

    @property
    def num_candidates(self) -> int:
        """See `PlanningFeatures`."""
        return self.candidates

    def images_per_candidate(self, train: int, validation: int) -> float:
        """See `PlanningFeatures`: a training step takes about as long as three forward passes."""
        return self.epochs * train + validation / 3

    def algorithm(self, problem: SearchProblem) -> RandomSearch:
        """Return the algorithm, ready to run."""
        return RandomSearch(self, problem)


class RandomSearch(SearchAlgorithm):
    """Proposes new architectures, round after round. It never repeats one and never exceeds the limits."""

    def __init__(self, config: RandomSearchConfig, problem: SearchProblem):
        problem.space.check_limit(problem.max_macs, problem.min_macs)
        self.config, self.problem, self.space = config, problem, problem.space
        self.rng = numpy_generator(problem.seed, "random-search")
        self.scores: dict[Genotype, float] = {}
        self._asked: list[Genotype] = []
        self._is_exhausted = False

    @property
    def is_finished(self) -> bool:
        """Whether all candidates were scored, or no new one can be found."""
        return len(self.scores) >= self.config.candidates or self._is_exhausted

    def ask(self) -> list[Genotype]:
        """Return the next round of candidates; a second call before `tell` returns the same round."""
        count = min(self.config.round_size, self.config.candidates - len(self.scores))
        missing = count - len(self._asked)
        known, problem = {*self.scores, *self._asked}, self.problem
        self._asked += draw_new(self.space, self.rng, problem.max_macs, missing, known, problem.min_macs)
        return list(self._asked)

    def tell(self, measurements: Sequence[Measurement]) -> list[float]:
        """Receive the round's measurements and return their scores; NaN is worst."""
        self._is_exhausted = not self._asked
        scores = self.rank(measurements)
        for genotype, score in zip(self._asked, scores, strict=True):
            self.scores[genotype] = -math.inf if math.isnan(score) else score
        self._asked = []
        return scores

    def scorer(self) -> StandAloneScorer:
        """Return a scorer that trains each candidate alone."""
        return StandAloneScorer.of(self.problem, self.config.optimizer, self.config.epochs)

    def best(self) -> tuple[Genotype, float]:
        """Return the best candidate and its score; the first found wins a tie."""
        if not self.scores:
            raise GenotypeError("No candidate has been scored yet.")
        return max(self.scores.items(), key=lambda item: item[1])

    def finalists(self, count: int) -> list[Genotype]:
        """Return the candidates with the highest scores."""
        return sorted(self.scores, key=lambda genotype: -self.scores[genotype])[:count]

    def state_dict(self) -> StateDict:
        """Return the state as numbers and text only."""
        return {
            "scores": [[self.space.encode(genotype), score] for genotype, score in self.scores.items()],
            "asked": [self.space.encode(genotype) for genotype in self._asked],
            "is_exhausted": self._is_exhausted,
            "rng": json.dumps(self.rng.bit_generator.state),
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Resume exactly where ``state_dict`` was called."""
        self.scores = {self.space.decode(text): score for text, score in state["scores"]}
        self._asked = [self.space.decode(text) for text in state["asked"]]
        self._is_exhausted = state["is_exhausted"]
        self.rng.bit_generator.state = json.loads(state["rng"])
