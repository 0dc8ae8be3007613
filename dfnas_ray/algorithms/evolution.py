"""Evolutionary search over genotypes under a MACs limit.

Source: Guo et al. 2020, arXiv:1904.00420, Sec. 3.4 and Algorithm 1. Evolution proposes candidates (`ask`) and receives
their scores (`tell`). It does not know who scores the candidates, or where.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dfnas_ray.algorithms.base import Measurement, SearchAlgorithm, SearchProblem, StateDict
from dfnas_ray.errors import GenotypeError
from dfnas_ray.limits import MANY
from dfnas_ray.search_spaces.base import Genotype, SearchSpace
from dfnas_ray.seeding import numpy_generator

_MAX_TRIES_PER_CHILD = 50


class EvolutionConfig(BaseModel):
    """Generations of mutation and crossover; the defaults are SPOS's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    generations: int = Field(
        20, gt=0, le=MANY, description="Number of generations scored, including the first, random one."
    )
    population: int = Field(50, gt=0, le=MANY, description="Candidates of the first generation.")
    parents: int = Field(
        10, gt=1, le=MANY, description="Number of best candidates so far from which children are made."
    )
    mutations: int = Field(25, ge=0, le=MANY, description="Children by mutation per generation.")
    crossovers: int = Field(25, ge=0, le=MANY, description="Children by crossover per generation.")
    mutation_probability: float = Field(
        0.1, gt=0, le=1, description="Probability that a mutation draws a decision anew."
    )

    @property
    def num_candidates(self) -> int:
        """Largest number of candidates of all generations."""
        return self.population + (self.generations - 1) * (self.mutations + self.crossovers)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.mutations + self.crossovers == 0:
            raise ValueError("mutations (0) and crossovers (0) leave no children. Raise one of them.")
        return self


class Evolution:
    """Maximises a score. It never proposes a genotype twice, or one outside the limits.

    Args:
        space: The search space.
        config: Sizes and rates.
        max_macs: Largest number of MACs, or None.
        seed: The seed of all random draws.
        min_macs: Smallest number of MACs, or None.
    """

    def __init__(
        self,
        space: SearchSpace,
        config: EvolutionConfig,
        max_macs: int | None,
        seed: int,
        min_macs: int | None = None,
    ):
        space.check_limit(max_macs, min_macs)
        self.space, self.config, self.max_macs, self.min_macs = space, config, max_macs, min_macs
        self.rng = numpy_generator(seed, "evolution")
        self.scores: dict[Genotype, float] = {}
        self.generation = 0
        self._asked: list[Genotype] = []

    @property
    def is_finished(self) -> bool:
        """Whether all generations were scored."""
        return self.generation >= self.config.generations

    def ask(self) -> list[Genotype]:
        """Return the candidates of the next generation, all new; fewer, or none, if the space is nearly exhausted.

        A second call before `tell` returns the same candidates.
        """
        if not self._asked and not self.is_finished:
            self._asked = self._propose()
        return list(self._asked)

    def tell(self, scores: Sequence[float]) -> None:
        """Receive the scores of the candidates of the last `ask`, in their order; higher is better, NaN is worst."""
        self.update_scores(dict(zip(self._asked, scores, strict=True)))
        self._asked = []
        self.generation += 1

    @property
    def asked(self) -> list[Genotype]:
        """The candidates of the last `ask` that have no scores yet."""
        return list(self._asked)

    def update_scores(self, scores: Mapping[Genotype, float]) -> None:
        """Set the scores of new or known candidates; NaN is worst."""
        self.scores.update({genotype: -math.inf if math.isnan(score) else score for genotype, score in scores.items()})

    def best(self) -> Genotype:
        """Return the genotype with the highest score; the first found wins a tie."""
        if not self.scores:
            raise GenotypeError("No candidate has been scored yet.")
        return self.ranked()[0]

    def ranked(self) -> list[Genotype]:
        """Return all scored genotypes, the best first; the first found wins a tie."""
        return sorted(self.scores, key=lambda genotype: -self.scores[genotype])

    def state_dict(self) -> StateDict:
        """Return everything that later draws depend on, as JSON text and numbers."""
        return {
            "scores": [[self.space.encode(genotype), score] for genotype, score in self.scores.items()],
            "asked": [self.space.encode(genotype) for genotype in self._asked],
            "generation": self.generation,
            "rng": json.dumps(self.rng.bit_generator.state),
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Resume exactly where ``state_dict`` was called."""
        self.scores = {self.space.decode(text): score for text, score in state["scores"]}
        self._asked = [self.space.decode(text) for text in state["asked"]]
        self.generation = state["generation"]
        self.rng.bit_generator.state = json.loads(state["rng"])

    def _propose(self) -> list[Genotype]:
        if self.generation == 0:
            return self._collect(self.config.population, self._draw)
        parents = self.ranked()[: self.config.parents]

        def pick() -> Genotype:
            return parents[int(self.rng.integers(len(parents)))]

        children = self._collect(
            self.config.mutations,
            lambda: self.space.mutate(pick(), self.rng, self.config.mutation_probability),
        )
        children += self._collect(
            self.config.crossovers, lambda: self.space.crossover(pick(), pick(), self.rng), exclude=children
        )
        missing = self.config.mutations + self.config.crossovers - len(children)
        if missing:  # converged parents give few new children; SPOS fills up with random ones
            children += self._collect(missing, self._draw, exclude=children)
        return children

    def _draw(self) -> Genotype:
        return self.space.sample_within(self.rng, self.max_macs, self.min_macs)

    def _collect(self, count: int, draw: Any, exclude: Sequence[Genotype] = ()) -> list[Genotype]:
        found: list[Genotype] = []
        seen = set(exclude)
        for _ in range(count * _MAX_TRIES_PER_CHILD):
            if len(found) == count:
                break
            genotype = draw()
            if genotype in seen or genotype in self.scores:
                continue
            if not self.space.is_within(genotype, self.max_macs, self.min_macs):
                continue
            seen.add(genotype)
            found.append(genotype)
        return found


class EvolutionarySearch(SearchAlgorithm):
    """A search whose candidates come from evolution; its result is the best of them."""

    evolution: Evolution

    @property
    def is_finished(self) -> bool:
        """Whether the last generation was scored."""
        return self.evolution.is_finished

    def ask(self) -> list[Genotype]:
        """Return the next generation."""
        return self.evolution.ask()

    def tell(self, measurements: Sequence[Measurement]) -> list[float]:
        """Receive the measurements of the generation, and return their scores."""
        scores = self.rank(measurements)
        self.evolution.tell(scores)
        return scores

    def best(self) -> tuple[Genotype, float]:
        """Return the best genotype within the limit and its score."""
        genotype = self.evolution.best()
        return genotype, self.evolution.scores[genotype]

    def finalists(self, count: int) -> list[Genotype]:
        """Return the genotypes with the highest scores."""
        return self.evolution.ranked()[:count]


class RelativeSearch(EvolutionarySearch):
    """An evolutionary search with relative scores: after each generation, all candidates so far are scored anew."""

    def __init__(self, config: EvolutionConfig, problem: SearchProblem):
        self.space = problem.space
        self.evolution = Evolution(problem.space, config, problem.max_macs, problem.seed, problem.min_macs)
        self.measured: dict[Genotype, Measurement] = {}

    def tell(self, measurements: Sequence[Measurement]) -> list[float]:
        """Receive the measurements of the generation, score all candidates anew, and return the generation's scores."""
        candidates = self.evolution.asked
        self.measured.update(zip(candidates, measurements, strict=True))
        scores = dict(zip(self.measured, self.rank(list(self.measured.values())), strict=True))
        told = [scores[candidate] for candidate in candidates]
        self.evolution.tell(told)
        self.evolution.update_scores(scores)
        return told

    def state_dict(self) -> StateDict:
        """Return the state as numbers and text only."""
        return {
            "evolution": self.evolution.state_dict(),
            "measured": [[self.space.encode(genotype), figures] for genotype, figures in self.measured.items()],
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Resume exactly where ``state_dict`` was called."""
        self.evolution.load_state_dict(state["evolution"])
        self.measured = {self.space.decode(text): dict(figures) for text, figures in state["measured"]}
