"""The contract of a search algorithm, and the loop that runs any of them.

An algorithm may first train (`train_epoch`, while `is_training`). Then it may propose candidates (`ask`) and receive
their measurements (`tell`) until it is finished. A gradient search only trains, a random search only proposes, a
one-shot search does both. An algorithm that measures single candidates can also rank any given architectures (`rank`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias

import torch
from torch import nn

from dfnas_ray.algorithms.features import (
    ExecutionFeatures,
    FileFeatures,
    PlanningFeatures,
    RankingFeatures,
    StreamingFeatures,
)
from dfnas_ray.config.member import MemberConfig
from dfnas_ray.config.registry import describe, is_built_in
from dfnas_ray.errors import ConfigError, DfnasError
from dfnas_ray.ops.precision import Precision
from dfnas_ray.search_spaces.base import Genotype, SearchSpace
from dfnas_ray.training.batches import SyntheticBatches
from dfnas_ray.training.config import DistillationConfig

Measurement = dict[str, float]
"""The figures of one candidate, by name. Its score may depend on those of other candidates (`SearchAlgorithm.rank`)."""

MeasureCandidates = Callable[[Sequence[Genotype]], list[Measurement]]
"""Returns one measurement per candidate, in their order."""

HistoryEntry: TypeAlias = dict[str, Any]
"""The record of one epoch or round of candidates: ``phase``, ``number`` and metrics; numbers, text and lists only."""

StateDict: TypeAlias = dict[str, Any]
"""A state of tensors, numbers and text only, so that it can be loaded with ``weights_only=True``."""

SCORE = "score"
"""The name of the figure where an algorithm measures only one; higher is better."""


def _keep_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Do nothing: with one process there is nothing to average."""


@dataclass(frozen=True)
class SearchProblem:
    """The inputs of a search.

    Attributes:
        space: The search space.
        train: Batches from which weights and architecture parameters are learned.
        validation: Batches on which candidates are judged; no gradient ever comes from them.
        distillation: Settings of the distillation from the teacher.
        max_macs: Largest number of MACs of an architecture, or None.
        seed: The seed of all random draws.
        precision: The precision in which networks compute.
        average_gradients: Called between the backward pass and the optimiser's step. Where several processes search
            together, it averages the gradients of the parameters over them.
        min_macs: Smallest number of MACs of an architecture, or None; set only for algorithms that respect it.
    """

    space: SearchSpace
    train: SyntheticBatches
    validation: SyntheticBatches
    distillation: DistillationConfig
    max_macs: int | None
    seed: int
    precision: Precision = "float32"
    average_gradients: Callable[[Iterable[nn.Parameter]], None] = _keep_gradients
    min_macs: int | None = None


class Scorer(Protocol):
    """A `MeasureCandidates` that can be sent to another process and placed on a device there.

    The measurement of a candidate must not depend on the other candidates or on their order.
    """

    def __call__(self, genotypes: Sequence[Genotype]) -> list[Measurement]:
        """Return one measurement per candidate."""
        ...

    def to(self, device: torch.device) -> None:
        """Move everything to a device."""
        ...


class BaseAlgorithmConfig(
    ExecutionFeatures, StreamingFeatures, PlanningFeatures, FileFeatures, RankingFeatures, MemberConfig
):
    """The settings that all algorithms share.

    Attributes:
        kind: The name of the algorithm in experiment files; each algorithm defines its own as a field.
        batch_size: Images per step; each algorithm defines it as a field.
    """

    if TYPE_CHECKING:
        kind: str
        batch_size: int

    unsuitable_spaces: ClassVar[dict[str, str]] = {}
    """Kinds of spaces that the algorithm cannot search, each with the reason."""

    keeps_min_macs: ClassVar[bool] = False
    """Whether the algorithm respects `search.min_macs`; if it does not, the setting is refused."""

    @property
    def label(self) -> str:
        """The name of the algorithm in results. Variants of one kind may have different labels."""
        return self.kind

    @property
    @abstractmethod
    def steps_to_show(self) -> int:
        """The length of the progress bar: a number of epochs, rounds or generations."""

    @abstractmethod
    def algorithm(self, problem: SearchProblem) -> SearchAlgorithm:
        """Return the algorithm, ready to run."""


class SearchAlgorithm(ABC):
    """A search. It knows nothing of processes, files or clusters.

    Attributes:
        space: The search space.
        num_epochs: Largest number of training epochs.
        epochs_done: Number of epochs trained so far.
    """

    space: SearchSpace
    num_epochs: int = 0
    epochs_done: int = 0

    shares_weights: ClassVar[bool] = True
    """Whether one training serves all candidates, so that the search is over if its loss is no longer finite."""

    @property
    def is_training(self) -> bool:
        """Whether another epoch is to be trained."""
        return self.epochs_done < self.num_epochs

    def train_epoch(self) -> dict[str, float]:
        """Train one epoch and return its metrics, ``loss`` among them."""
        raise NotImplementedError

    @property
    def is_finished(self) -> bool:
        """Whether no candidates are left to propose."""
        return True

    def ask(self) -> list[Genotype]:
        """Return candidates to measure."""
        raise NotImplementedError

    def tell(self, measurements: Sequence[Measurement]) -> list[float]:
        """Receive the measurements of the candidates of the last `ask`, and return their current scores."""
        raise NotImplementedError

    def scorer(self) -> Scorer:
        """Return a scorer, which measures candidates with what was trained; a copy that can work in another process."""
        raise NotImplementedError

    def rank(self, measurements: Sequence[Measurement]) -> list[float]:
        """Return one score per measurement, higher is better; NaN where a candidate could not be measured.

        By default each measurement is scored by itself. Algorithms that compare candidates, such as those that add up
        ranks, look at all measurements.
        """
        return [measurement[SCORE] for measurement in measurements]

    @abstractmethod
    def best(self) -> tuple[Genotype, float]:
        """Return the best architecture found, within the limit, and its score on the algorithm's own scale."""

    @abstractmethod
    def finalists(self, count: int) -> list[Genotype]:
        """Return up to ``count`` different architectures within the limit for a closer comparison; `best` is first."""

    @abstractmethod
    def state_dict(self) -> StateDict:
        """Return the state as tensors, numbers and text only."""

    @abstractmethod
    def load_state_dict(self, state: StateDict) -> None:
        """Resume exactly where ``state_dict`` was called."""


def make_algorithm(config: BaseAlgorithmConfig, problem: SearchProblem) -> SearchAlgorithm:
    """Return the algorithm of these settings, ready to run.

    Raises:
        ConfigError: it comes from another package and breaks the contract; the message names package, member and rule.
    """
    algorithm: object = config.algorithm(problem)
    if isinstance(algorithm, SearchAlgorithm):
        return algorithm
    assert not is_built_in(type(config))
    raise ConfigError(
        f"The algorithm {describe(type(config))} breaks its contract: algorithm() must return a SearchAlgorithm, not a "
        f"{type(algorithm).__name__}."
    )


def diverged(epoch: int) -> DfnasError:
    """Return the error of a search whose training diverged in an epoch, counted from 1."""
    return DfnasError(
        f"The training of this search diverged in epoch {epoch}: its loss is not finite. Lower its learning rate, such as "
        "search.algorithm.optimizer.lr."
    )


@dataclass
class SearchState:
    """A search in progress: the algorithm and its history.

    Attributes:
        history: One entry per epoch and per round of candidates: ``phase``, ``number`` and metrics.
    """

    algorithm: SearchAlgorithm
    history: list[HistoryEntry] = field(default_factory=list)

    def run(
        self,
        on_progress: Callable[[SearchState], None] = lambda state: None,
        measure_with: Callable[[Scorer], MeasureCandidates] = lambda scorer: scorer,
    ) -> None:
        """Run the search to the end.

        Args:
            on_progress: Called after each epoch and each round of candidates, for example to write a checkpoint.
            measure_with: Takes the trained scorer and returns the function that measures candidates. That function may
                distribute candidates over machines.

        Raises:
            DfnasError: the training diverged, or no candidate could be measured.
        """
        self.train(on_progress)
        algorithm = self.algorithm
        measure = measure_with(algorithm.scorer()) if not algorithm.is_finished else None
        while not algorithm.is_finished:
            assert measure is not None
            candidates = algorithm.ask()
            scores = algorithm.tell(measure(candidates))
            number = 1 + sum(entry["phase"] == "sampling" for entry in self.history)
            self.history.append(
                {
                    "phase": "sampling",
                    "number": number,
                    "best": algorithm.best()[1],
                    "scores": scores,
                    "genotypes": [algorithm.space.encode(candidate) for candidate in candidates],
                }
            )
            on_progress(self)
        score = algorithm.best()[1]
        if math.isnan(score) or score == -math.inf:
            raise DfnasError(
                "No architecture of this search has a score that is a number, so none is better than another. If it trains "
                "networks, lower its learning rate, such as search.algorithm.optimizer.lr."
            )

    def train(self, on_progress: Callable[[SearchState], None] = lambda state: None) -> None:
        """Train to the last epoch. After that, candidates can be measured.

        Raises:
            DfnasError: the training diverged.
        """
        while self.algorithm.is_training:
            metrics = self.algorithm.train_epoch()
            if self.algorithm.shares_weights and not math.isfinite(metrics.get("loss", 0.0)):
                raise diverged(self.algorithm.epochs_done)
            self.history.append({"phase": "training", "number": self.algorithm.epochs_done, **metrics})
            on_progress(self)

    def state_dict(self) -> StateDict:
        """Return the state as tensors, numbers and text only."""
        return {"algorithm": self.algorithm.state_dict(), "history": self.history}

    def load_state_dict(self, state: StateDict) -> None:
        """Resume exactly where ``state_dict`` was called."""
        self.algorithm.load_state_dict(state["algorithm"])
        self.history = list(state["history"])
