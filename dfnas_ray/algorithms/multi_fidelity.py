"""Multi-fidelity search: candidates trained alone for growing budgets, the weak ones stopped early. No weights are shared.

Sources: successive halving, Jamieson & Talwalkar 2016, arXiv:1502.07943; HyperBand, Li et al. 2018, arXiv:1603.06560; ASHA,
its asynchronous form, Li et al. 2020, arXiv:1810.05934.

A *rung* is a number of epochs at which candidates are compared. What a candidate scores there depends on its genotype and
the seed alone. Who goes on depends on whom it is compared with: on all others in the synchronous form that runs here
(`successive_halving.SuccessiveHalving`), on those that were there before it in the asynchronous one, where each
candidate is a Ray Tune trial (`execution.ray.multi_fidelity`) and survivors therefore vary with the timing. The final order
is the same function of the results in both: by the rung reached, then by the score there; ties by the genotype's text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, Self, TypedDict

from pydantic import Field, model_validator

from dfnas_ray.algorithms.base import SCORE, BaseAlgorithmConfig, HistoryEntry, Measurement, SearchProblem
from dfnas_ray.algorithms.random_search import draw_new
from dfnas_ray.algorithms.stand_alone import Metric, score_of
from dfnas_ray.errors import GenotypeError
from dfnas_ray.search_spaces.base import Genotype, SearchSpace
from dfnas_ray.seeding import numpy_generator
from dfnas_ray.training.config import OptimizerConfig
from dfnas_ray.training.student import Validation

if TYPE_CHECKING:
    from dfnas_ray.algorithms.successive_halving import SuccessiveHalving

EPOCHS = "epochs"


class RungResult(TypedDict):
    """What a candidate showed at a rung; NaN twice if its training diverged on the way there."""

    epochs: int
    loss: float
    agreement: float


@dataclass
class Candidate:
    """An architecture and what is known of it.

    Attributes:
        number: In the order of proposal.
        genotype: In the space's notation.
        results: One per rung, ascending.
        is_stopped: Whether a scheduler stopped it before the highest rung.
    """

    number: int
    genotype: str
    results: list[RungResult] = field(default_factory=list)
    is_stopped: bool = False

    @property
    def epochs(self) -> int:
        """The rung reached, in epochs."""
        return self.results[-1]["epochs"] if self.results else 0

    @property
    def is_diverged(self) -> bool:
        """Whether its training ended in NaN."""
        return bool(self.results) and math.isnan(self.results[-1]["loss"])

    def add(self, epochs: int, validation: Validation) -> None:
        """Note what it showed at a rung."""
        self.results.append({"epochs": epochs, "loss": validation.loss, "agreement": validation.agreement})


class MultiFidelityConfig(BaseAlgorithmConfig):
    """Candidates trained alone, each a Ray Tune trial; ASHA or HyperBand stops the weak ones early."""

    kind: Literal["multi_fidelity"] = "multi_fidelity"
    candidates: int = Field(30, gt=0, description="Architectures tried, all different.")
    proposals: Literal["random", "tpe"] = Field(
        "random", description="Drawn uniformly, or proposed by Optuna's TPE from what was measured."
    )
    scheduler: Literal["asha", "hyperband"] = Field(
        "asha",
        description="asha compares all candidates from the lowest rung on; hyperband deals them to brackets of ASHA, some of "
        "which begin at higher rungs, for the case that short trainings mislead.",
    )
    min_epochs: int = Field(1, gt=0, description="The lowest rung has at least so many epochs.")
    max_epochs: int = Field(27, gt=0, description="The highest rung: passes over the synthetic training images.")
    reduction_factor: int = Field(
        3, ge=2, description="A rung lets the best 1/factor pass; the next one has factor times its epochs."
    )
    metric: Metric = Field(
        "loss", description="Distillation loss on the validation images, or agreement with the teacher."
    )
    concurrency: int | None = Field(None, gt=0, description="Candidates at once; by default as many as have room.")
    batch_size: int = Field(128, gt=0, description="Images per step.")
    optimizer: OptimizerConfig = OptimizerConfig()

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
        """Epochs at which candidates are compared: from ``max_epochs`` downwards, divided by the factor, ascending."""
        rungs, epochs = [], float(self.max_epochs)
        while epochs >= self.min_epochs:
            rungs.append(round(epochs))
            epochs /= self.reduction_factor
        return tuple(reversed(rungs))

    @property
    def steps_to_show(self) -> int:
        """Candidates: how long a progress bar is."""
        return self.candidates

    def draw(self, space: SearchSpace, max_macs: int | None, seed: int) -> list[Genotype]:
        """Return the candidates that ``proposals: random`` means: the same for one seed, fewer in a small space."""
        return draw_new(space, numpy_generator(seed, "multi-fidelity"), max_macs, self.candidates)

    def is_open(self, candidate: Candidate) -> bool:
        """Whether there is something left to train."""
        return not (candidate.is_stopped or candidate.is_diverged or candidate.epochs >= self.max_epochs)

    def score(self, result: RungResult) -> float:
        """Return a result's score, higher is better."""
        return score_of(Validation(result["loss"], result["agreement"]), self.metric)

    def measurement(self, candidate: Candidate) -> Measurement:
        """Return the epochs reached and the score there, as `rank` takes them."""
        score = self.score(candidate.results[-1]) if candidate.results else math.nan
        return {EPOCHS: float(candidate.epochs), SCORE: score}

    def rank(self, measurements: Sequence[Measurement]) -> list[float]:
        """Return one score per measurement: how many others it is ahead of, by the epochs reached and then by the score.

        NaN where a training diverged. A candidate may be ahead of a better one that was stopped too early.
        """
        keys = [(measurement[EPOCHS], measurement[SCORE]) for measurement in measurements]
        valid = sorted(key for key in keys if not math.isnan(key[1]))
        return [math.nan if math.isnan(key[1]) else float(valid.index(key)) for key in keys]

    def algorithm(self, problem: SearchProblem) -> SuccessiveHalving:
        """Return the synchronous form, which needs no Ray; `execution.ray.multi_fidelity` runs the asynchronous one."""
        from dfnas_ray.algorithms.successive_halving import SuccessiveHalving

        return SuccessiveHalving(self, problem)


class Population:
    """All candidates of one search, in order.

    Args:
        config: Of the search.
        candidates: Those that were proposed, in any order.
    """

    def __init__(self, config: MultiFidelityConfig, candidates: Iterable[Candidate]):
        self.config = config
        self.candidates = sorted(candidates, key=lambda candidate: candidate.number)

    def ranked(self, candidates: Sequence[Candidate] | None = None) -> list[Candidate]:
        """Return those (by default all) that did not diverge, best first."""
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
                f"not begun. If they diverged, lower search.algorithm.optimizer.lr ({self.config.optimizer.lr:g})."
            )
        return ranked[0], self.config.measurement(ranked[0])[SCORE]

    def history(self) -> list[HistoryEntry]:
        """Return one entry per rung: who reached it, with which scores."""
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
