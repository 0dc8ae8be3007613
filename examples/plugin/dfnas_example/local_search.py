"""Local search: from the best of a few random architectures to a better neighbour, until none is better.

Source: White et al. 2021, arXiv:2005.02960, Sec. 3: simple, and hard to beat where scores carry little noise. At a local
optimum it starts anew elsewhere. Each candidate is trained alone for a short while.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from dfnas_ray.algorithms import BaseAlgorithmConfig, SearchAlgorithm, SearchProblem
from dfnas_ray.algorithms.base import Measurement, StateDict
from dfnas_ray.algorithms.random_search import draw_new
from dfnas_ray.algorithms.stand_alone import StandAloneScorer
from dfnas_ray.search_spaces import Genotype
from dfnas_ray.seeding import numpy_generator
from dfnas_ray.training.config import OptimizerConfig


class LocalSearchConfig(BaseAlgorithmConfig):
    """Local search over architectures that differ in one decision, each trained alone."""

    kind: Literal["local_search"] = "local_search"
    candidates: int = Field(20, gt=0, description="Architectures trained in all.")
    round_size: int = Field(4, gt=0, description="Neighbours trained before it moves to the best of them.")
    epochs: int = Field(5, gt=0, description="Passes over the synthetic training images for each candidate.")
    batch_size: int = Field(128, gt=0, description="Images per step.")
    optimizer: OptimizerConfig = OptimizerConfig()

    # What is measured of an architecture does not depend on these: `dfnas benchmark` measures it once.
    search_settings: ClassVar[frozenset[str]] = frozenset({"candidates", "round_size"})

    @property
    def steps_to_show(self) -> int:
        """Rounds: how long a progress bar is."""
        return -(-self.candidates // self.round_size)

    def algorithm(self, problem: SearchProblem) -> LocalSearch:
        """Return the algorithm, ready to run."""
        return LocalSearch(self, problem)


class LocalSearch(SearchAlgorithm):
    """Proposes neighbours of where it is; never an architecture twice, nor one above the limit.

    Attributes:
        here: Where it is; None before it starts, and at a local optimum.
        scores: Of all architectures measured, in their order.
    """

    def __init__(self, config: LocalSearchConfig, problem: SearchProblem):
        self.config, self.problem, self.space = config, problem, problem.space
        self.rng = numpy_generator(problem.seed, "local-search")
        self.scores: dict[Genotype, float] = {}
        self.here: Genotype | None = None
        self._asked: list[Genotype] = []
        self._is_exhausted = False

    @property
    def is_finished(self) -> bool:
        """Whether all candidates were measured, or no new one can be found."""
        return len(self.scores) >= self.config.candidates or self._is_exhausted

    def ask(self) -> list[Genotype]:
        """Return the next round: neighbours that were not measured, or, where there are none, random architectures."""
        count = min(self.config.round_size, self.config.candidates - len(self.scores))
        self._asked = self._neighbours()[:count]
        if not self._asked:
            self.here = None
            self._asked = draw_new(self.space, self.rng, self.problem.max_macs, count, self.scores)
        return list(self._asked)

    def tell(self, measurements: Sequence[Measurement]) -> list[float]:
        """Take the round's scores, and move to the best of the round if it is better than here."""
        self._is_exhausted = not self._asked
        scores = self.rank(measurements)
        for genotype, score in zip(self._asked, scores, strict=True):
            self.scores[genotype] = -math.inf if math.isnan(score) else score
            if self.here is None or self.scores[genotype] > self.scores[self.here]:
                self.here = genotype
        self._asked = []
        return scores

    def scorer(self) -> StandAloneScorer:
        """Return a scorer that trains each candidate alone."""
        return StandAloneScorer.of(self.problem, self.config.optimizer, self.config.epochs)

    def best(self) -> tuple[Genotype, float]:
        """Return the best candidate and its score; the first found wins a tie."""
        best = self.finalists(1)[0]
        return best, self.scores[best]

    def finalists(self, count: int) -> list[Genotype]:
        """Return the candidates of the highest scores."""
        return sorted(self.scores, key=lambda genotype: -self.scores[genotype])[:count]

    def state_dict(self) -> StateDict:
        """Return numbers and text only."""
        return {
            "scores": [[self.space.encode(genotype), score] for genotype, score in self.scores.items()],
            "here": None if self.here is None else self.space.encode(self.here),
            "is_exhausted": self._is_exhausted,
            "rng": json.dumps(self.rng.bit_generator.state),
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Go on exactly where ``state_dict`` was called."""
        self.scores = {self.space.decode(text): score for text, score in state["scores"]}
        self.here = None if state["here"] is None else self.space.decode(state["here"])
        self._is_exhausted = state["is_exhausted"]
        self.rng.bit_generator.state = json.loads(state["rng"])

    def _neighbours(self) -> list[Genotype]:
        """Return the architectures that differ from here in one decision, are within the limit and new, in random order."""
        if self.here is None:
            return []
        neighbours = [
            (*self.here[:position], choice, *self.here[position + 1 :])
            for position, options in enumerate(self.space.num_choices)
            for choice in range(options)
        ]
        limit = math.inf if self.problem.max_macs is None else self.problem.max_macs
        new = [one for one in neighbours if one not in self.scores and self.space.cost(one).macs <= limit]
        return [new[index] for index in self.rng.permutation(len(new))]
