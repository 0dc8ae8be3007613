"""Successive halving in one process: the synchronous form of a multi-fidelity search.

All candidates are trained to the lowest rung, the best share of them to the next, and so on: the whole search depends on
the seed alone. Source: Jamieson & Talwalkar 2016, arXiv:1502.07943.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from dfnas_ray.algorithms.base import SearchAlgorithm, SearchProblem, StateDict
from dfnas_ray.algorithms.multi_fidelity import Candidate, MultiFidelityConfig, Population
from dfnas_ray.algorithms.stand_alone import CandidateTraining, StandAloneScorer
from dfnas_ray.errors import ConfigError
from dfnas_ray.search_spaces.base import Genotype


class SuccessiveHalving(SearchAlgorithm):
    """Only trains: an epoch of the search is one candidate's way to its next rung.

    Given architectures are measured at the highest rung, each: without others there is nobody to stop for.

    Args:
        config: Of the search.
        problem: What it works on.
        given: The candidates, instead of those that the settings draw within the limit.

    Raises:
        ConfigError: the settings ask for what only Ray Tune does.
    """

    def __init__(self, config: MultiFidelityConfig, problem: SearchProblem, given: Sequence[Genotype] | None = None):
        for name, value in (("proposals", "tpe"), ("scheduler", "hyperband")):
            if getattr(config, name) == value:
                raise ConfigError(
                    f"search.algorithm.{name} ({value}) needs Ray Tune: set cluster.address to local, or leave it out."
                )
        if given is None:
            problem.space.check_limit(problem.max_macs)
        self.config, self.problem, self.space = config, problem, problem.space
        drawn = config.draw(problem.space, problem.max_macs, problem.seed) if given is None else list(given)
        texts = [problem.space.encode(genotype) for genotype in drawn]
        self.population = Population(config, [Candidate(number, text) for number, text in enumerate(texts)])
        self._trainings: dict[int, CandidateTraining] = {}
        count = len(drawn)
        for _ in config.rungs:
            self.num_epochs += count
            count = self._survivors(count)

    @property
    def is_training(self) -> bool:
        """Whether a candidate has a rung before it."""
        return bool(self._alive()[0])

    def train_epoch(self) -> dict[str, float]:
        """Train the next candidate to its rung, and return its validation loss and agreement."""
        alive, epochs = self._alive()
        candidate = next(candidate for candidate in alive if candidate.epochs < epochs)
        training = self._trainings.get(candidate.number) or self._begin(candidate)
        validation = training.train_to(epochs)
        candidate.add(epochs, validation)
        self._trainings[candidate.number] = training
        still_alive = {other.number for other in self._alive()[0]}
        for number in self._trainings.keys() - still_alive:
            del self._trainings[number]
        self.epochs_done += 1
        return validation._asdict()

    def scorer(self) -> StandAloneScorer:
        """Return a scorer that trains each candidate to the highest rung."""
        config = self.config
        return StandAloneScorer.of(self.problem, config.optimizer, config.max_epochs, config.rungs[:-1], config.metric)

    def best(self) -> tuple[Genotype, float]:
        """Return the best candidate of the highest rung reached, and its score there."""
        candidate, score = self.population.best()
        return self.space.decode(candidate.genotype), score

    def finalists(self, count: int) -> list[Genotype]:
        """Return the candidates that came farthest."""
        return [self.space.decode(candidate.genotype) for candidate in self.population.ranked()[:count]]

    def state_dict(self) -> StateDict:
        """Return tensors, numbers and text only: the results of all, and the networks of those still in the race."""
        return {
            "candidates": [asdict(candidate) for candidate in self.population.candidates],
            "trainings": {number: training.state_dict() for number, training in self._trainings.items()},
            "epochs_done": self.epochs_done,
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Go on exactly where ``state_dict`` was called."""
        self.population = Population(self.config, [Candidate(**candidate) for candidate in state["candidates"]])
        self.epochs_done = state["epochs_done"]
        self._trainings = {}
        for number, training in state["trainings"].items():
            self._trainings[number] = self._begin(self.population.candidates[number])
            self._trainings[number].load_state_dict(training)

    def _survivors(self, count: int) -> int:
        return -(-count // self.config.reduction_factor)

    def _alive(self) -> tuple[list[Candidate], int]:
        """Return who takes part in the lowest rung that is not finished, and its epochs; nobody at the end."""
        alive = self.population.candidates
        for epochs in self.config.rungs:
            racing = [candidate for candidate in alive if not candidate.is_diverged]
            if any(candidate.epochs < epochs for candidate in racing):
                return racing, epochs
            alive = self._best_at(epochs, alive)
        return [], 0

    def _best_at(self, epochs: int, candidates: list[Candidate]) -> list[Candidate]:
        """Return the best share of those that were at a rung."""
        there = [Candidate(c.number, c.genotype, [r for r in c.results if r["epochs"] <= epochs]) for c in candidates]
        best = self.population.ranked(there)[: self._survivors(len(there))]
        return [self.population.candidates[candidate.number] for candidate in best]

    def _begin(self, candidate: Candidate) -> CandidateTraining:
        config, problem = self.config, self.problem
        return CandidateTraining(
            self.space,
            self.space.decode(candidate.genotype),
            problem.train,
            problem.validation,
            problem.distillation,
            config.optimizer,
            config.rungs,
            problem.seed,
            problem.precision,
        )
