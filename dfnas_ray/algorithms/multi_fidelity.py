"""Multi-fidelity search: candidates are trained alone with growing budgets, and weak ones are stopped early.

No weights are shared.

Sources: successive halving, Jamieson & Talwalkar 2016, arXiv:1502.07943; HyperBand, Li et al. 2018, arXiv:1603.06560; ASHA,
its asynchronous form, Li et al. 2020, arXiv:1810.05934.

A *rung* is a number of epochs at which candidates are compared. The score of a candidate at a rung depends only on its
genotype and the seed. Whether it continues depends on the candidates that it is compared with. In the synchronous form,
which runs here (`SuccessiveHalving`), these are all others. In the asynchronous form each candidate is a Ray Tune trial
(`execution.ray.population`). It is compared with those that reached the rung before it, so the survivors vary with the
timing. Both forms compute the final order from the results in the same way: by the rung reached, then by the score
there, then by the genotype's text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import ClassVar, Literal, Self, TypedDict

from pydantic import Field, model_validator

from dfnas_ray.algorithms.base import (
    SCORE,
    BaseAlgorithmConfig,
    HistoryEntry,
    Measurement,
    SearchAlgorithm,
    SearchProblem,
    StateDict,
)
from dfnas_ray.algorithms.random_search import draw_new
from dfnas_ray.algorithms.stand_alone import CandidateTraining, Metric, StandAloneScorer, score_of
from dfnas_ray.errors import ConfigError, GenotypeError
from dfnas_ray.limits import MANY, SEVERAL
from dfnas_ray.search_spaces.base import Genotype, SearchSpace
from dfnas_ray.seeding import numpy_generator
from dfnas_ray.training.config import OptimizerConfig
from dfnas_ray.training.student import Validation

EPOCHS = "epochs"


class RungResult(TypedDict):
    """The figures of a candidate at a rung; both are NaN if its training diverged before."""

    epochs: int
    loss: float
    agreement: float


@dataclass
class Candidate:
    """An architecture and its results so far.

    Attributes:
        number: Its number, in the order of proposal.
        genotype: The genotype in the space's notation.
        results: One result per rung, ascending.
        is_stopped: Whether a scheduler stopped it before the highest rung.
    """

    number: int
    genotype: str
    results: list[RungResult] = field(default_factory=list)
    is_stopped: bool = False

    @property
    def epochs(self) -> int:
        """The last rung reached, in epochs."""
        return self.results[-1]["epochs"] if self.results else 0

    @property
    def is_diverged(self) -> bool:
        """Whether its training ended in NaN."""
        return bool(self.results) and math.isnan(self.results[-1]["loss"])

    def add(self, epochs: int, validation: Validation) -> None:
        """Add the result of a rung."""
        self.results.append({"epochs": epochs, "loss": validation.loss, "agreement": validation.agreement})


class MultiFidelityConfig(BaseAlgorithmConfig):
    """Candidates trained alone; ASHA or HyperBand stops the weak ones early. Without Ray, rung by rung."""

    kind: Literal["multi_fidelity"] = "multi_fidelity"
    candidates: int = Field(30, gt=0, le=MANY, description="Architectures tried, all different.")
    proposals: Literal["random", "tpe"] = Field(
        "random",
        description="random draws candidates uniformly; tpe lets Optuna's TPE propose them from earlier results.",
    )
    scheduler: Literal["asha", "hyperband"] = Field(
        "asha",
        description="asha compares all candidates from the lowest rung on; hyperband distributes them over brackets of "
        "ASHA. Some brackets begin at higher rungs, in case short trainings mislead.",
    )
    min_epochs: int = Field(1, gt=0, le=MANY, description="The lowest rung has at least this many epochs.")
    max_epochs: int = Field(
        27, gt=0, le=MANY, description="The highest rung: passes over the synthetic training images."
    )
    reduction_factor: int = Field(
        3, ge=2, le=MANY, description="The best 1/factor of a rung continue; the next rung has factor times its epochs."
    )
    metric: Metric = Field(
        "loss", description="Distillation loss on the validation images, or agreement with the teacher."
    )
    concurrency: int | None = Field(
        None,
        gt=0,
        le=SEVERAL,
        description="Candidates trained at the same time; by default as many as fit the cluster.",
    )
    batch_size: int = Field(128, gt=0, le=MANY, description="Images per step.")
    optimizer: OptimizerConfig = OptimizerConfig()

    keeps_min_macs: ClassVar[bool] = True
    measures_population: ClassVar[bool] = True  # how far a candidate comes depends on the others

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min_epochs > self.max_epochs:
            raise ValueError(f"min_epochs ({self.min_epochs}) must not be above max_epochs ({self.max_epochs}).")
        if len(self.rungs) < 2:
            raise ValueError(
                f"max_epochs ({self.max_epochs}) must be at least reduction_factor ({self.reduction_factor}) times "
                f"min_epochs ({self.min_epochs}), or no candidate is stopped early. Raise it to "
                f"{self.reduction_factor * self.min_epochs}, or take random_search."
            )
        return self

    @property
    def rungs(self) -> tuple[int, ...]:
        """Epochs at which candidates are compared, ascending: ``max_epochs`` divided by powers of the factor."""
        rungs, epochs = [], float(self.max_epochs)
        while epochs >= self.min_epochs:
            rungs.append(round(epochs))
            epochs /= self.reduction_factor
        return tuple(reversed(rungs))

    @property
    def figures(self) -> tuple[str, ...]:
        """See `RankingFeatures`."""
        return (EPOCHS, SCORE)

    @property
    def steps_to_show(self) -> int:
        """The length of the progress bar, in candidates."""
        return self.candidates

    @property
    def needs_many_workers(self) -> str:
        """See `ExecutionFeatures`."""
        for name, value in (("proposals", "tpe"), ("scheduler", "hyperband")):
            if getattr(self, name) == value:
                return (
                    f"search.algorithm.{name} ({value}) of multi_fidelity needs Ray Tune. Set cluster.address to local, or "
                    "take proposals: random and scheduler: asha."
                )
        return ""

    @property
    def num_passes(self) -> float:
        """See `PlanningFeatures`: the passes of all candidates, of which fewer reach each next rung."""
        passes, count, before = 0, self.candidates, 0
        for rung in self.rungs:
            passes += count * (rung - before)
            count, before = -(-count // self.reduction_factor), rung
        return float(passes)

    @property
    def passes_per_epoch(self) -> float:
        """See `PlanningFeatures`: one call trains a candidate to the lowest rung."""
        return float(self.rungs[0])

    def draw(self, space: SearchSpace, max_macs: int | None, seed: int, min_macs: int | None = None) -> list[Genotype]:
        """Return the candidates of ``proposals: random``; they depend only on the seed, and a small space has fewer."""
        return draw_new(space, numpy_generator(seed, "multi-fidelity"), max_macs, self.candidates, (), min_macs)

    def is_open(self, candidate: Candidate) -> bool:
        """Whether the candidate can be trained further."""
        return not (candidate.is_stopped or candidate.is_diverged or candidate.epochs >= self.max_epochs)

    def score(self, result: RungResult) -> float:
        """Return a result's score, higher is better."""
        return score_of(Validation(result["loss"], result["agreement"]), self.metric)

    def measurement(self, candidate: Candidate) -> Measurement:
        """Return the epochs reached and the score there, as `rank` takes them."""
        score = self.score(candidate.results[-1]) if candidate.results else math.nan
        return {EPOCHS: float(candidate.epochs), SCORE: score}

    def rank(self, measurements: Sequence[Measurement]) -> list[float]:
        """Return one score per measurement: the number of others below it, by epochs reached, then by the score there.

        The score is NaN where a training diverged. A candidate may rank above a better one that was stopped too early.
        """
        keys = [(measurement[EPOCHS], measurement[SCORE]) for measurement in measurements]
        valid = sorted(key for key in keys if not math.isnan(key[1]))
        return [math.nan if math.isnan(key[1]) else float(valid.index(key)) for key in keys]

    def algorithm(self, problem: SearchProblem) -> SuccessiveHalving:
        """Return the synchronous form, which needs no Ray; `execution.ray.population` runs the asynchronous one."""
        return SuccessiveHalving(self, problem)


class Population:
    """All candidates of one search, in the order of their numbers.

    Args:
        config: Settings of the search.
        candidates: The proposed candidates, in any order.
    """

    def __init__(self, config: MultiFidelityConfig, candidates: Iterable[Candidate]):
        self.config = config
        self.candidates = sorted(candidates, key=lambda candidate: candidate.number)

    def ranked(self, candidates: Sequence[Candidate] | None = None) -> list[Candidate]:
        """Return the given candidates (by default all) whose training did not diverge, best first."""
        several = self.candidates if candidates is None else candidates
        ranks = self.config.rank([self.config.measurement(candidate) for candidate in several])
        order = [(-rank, candidate.genotype, candidate) for rank, candidate in zip(ranks, several, strict=True)]
        return [candidate for rank, _, candidate in sorted(order, key=lambda item: item[:2]) if not math.isnan(rank)]

    def best(self) -> tuple[Candidate, float]:
        """Return the best candidate and its score.

        Raises:
            GenotypeError: all trainings diverged, or none has a result.
        """
        ranked = self.ranked()
        if not ranked:
            raise GenotypeError(
                f"None of {len(self.candidates)} candidates of multi_fidelity has a score: their trainings diverged, or have "
                f"not started. If they diverged, lower search.algorithm.optimizer.lr ({self.config.optimizer.lr:g})."
            )
        return ranked[0], self.config.measurement(ranked[0])[SCORE]

    def history(self) -> list[HistoryEntry]:
        """Return one entry per rung: the candidates that reached it, and their scores."""
        entries: list[HistoryEntry] = []
        for number, epochs in enumerate(self.config.rungs, start=1):
            there = [
                (c.genotype, self.config.score(r)) for c in self.candidates for r in c.results if r["epochs"] == epochs
            ]
            if there:
                scores = [score for _, score in there]
                best = max((score for score in scores if not math.isnan(score)), default=math.nan)
                genotypes = [genotype for genotype, _ in there]
                entries.append(
                    {
                        "phase": "sampling",
                        "number": number,
                        "epochs": epochs,
                        "best": best,
                        "scores": scores,
                        "genotypes": genotypes,
                    }
                )
        return entries


class SuccessiveHalving(SearchAlgorithm):
    """Successive halving in one process: Jamieson & Talwalkar 2016, arXiv:1502.07943.

    All candidates are trained to the lowest rung, the best share of them to the next, and so on. The whole search
    depends only on the seed. It only trains: one epoch of the search trains one candidate to its next rung.

    Given architectures are each measured at the highest rung, because there is no competition that could stop them.

    Args:
        config: Settings of the search.
        problem: The inputs of the search.
        given: The candidates; by default the settings draw them within the limits.

    Raises:
        ConfigError: the settings need Ray Tune.
    """

    shares_weights = False  # one that diverges is only the worst

    def __init__(self, config: MultiFidelityConfig, problem: SearchProblem, given: Sequence[Genotype] | None = None):
        if config.needs_many_workers:
            raise ConfigError(config.needs_many_workers)
        if given is None:
            problem.space.check_limit(problem.max_macs, problem.min_macs)
        self.config, self.problem, self.space = config, problem, problem.space
        drawn = list(given or ())
        if given is None:
            drawn = config.draw(problem.space, problem.max_macs, problem.seed, problem.min_macs)
        texts = [problem.space.encode(genotype) for genotype in drawn]
        self.population = Population(config, [Candidate(number, text) for number, text in enumerate(texts)])
        self._trainings: dict[int, CandidateTraining] = {}
        count = len(drawn)
        for _ in config.rungs:
            self.num_epochs += count
            count = self._survivors(count)

    @property
    def is_training(self) -> bool:
        """Whether a candidate has a further rung to reach."""
        return bool(self._alive()[0])

    def train_epoch(self) -> dict[str, float]:
        """Train the next candidate to its next rung, and return its validation loss and agreement."""
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
        """Return the best candidates, by the rung reached and the score there."""
        return [self.space.decode(candidate.genotype) for candidate in self.population.ranked()[:count]]

    def state_dict(self) -> StateDict:
        """Return the state as tensors, numbers and text only: all results, and the networks that still compete."""
        return {
            "candidates": [asdict(candidate) for candidate in self.population.candidates],
            "trainings": {number: training.state_dict() for number, training in self._trainings.items()},
            "epochs_done": self.epochs_done,
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Resume exactly where ``state_dict`` was called."""
        self.population = Population(self.config, [Candidate(**candidate) for candidate in state["candidates"]])
        self.epochs_done = state["epochs_done"]
        self._trainings = {}
        for number, training in state["trainings"].items():
            self._trainings[number] = self._begin(self.population.candidates[number])
            self._trainings[number].load_state_dict(training)

    def _survivors(self, count: int) -> int:
        return -(-count // self.config.reduction_factor)

    def _alive(self) -> tuple[list[Candidate], int]:
        """Return the candidates of the lowest unfinished rung, and its epochs; no candidates at the end."""
        alive = self.population.candidates
        for epochs in self.config.rungs:
            racing = [candidate for candidate in alive if not candidate.is_diverged]
            if any(candidate.epochs < epochs for candidate in racing):
                return racing, epochs
            alive = self._best_at(epochs, alive)
        return [], 0

    def _best_at(self, epochs: int, candidates: list[Candidate]) -> list[Candidate]:
        """Return the best share of the candidates that reached a rung."""
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
