"""The contract of a search algorithm, and the loop that runs any of them.

An algorithm may train (`train_epoch`, while `is_training`), and then propose candidates (`ask`) and learn what was
measured of them (`tell`) until it is finished. A gradient search only trains, a random search only proposes, a one-shot
search does both. An algorithm that measures single candidates can also put any given architectures in order (`rank`).
"""

from __future__ import annotations

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
from dfnas_ray.errors import ConfigError
from dfnas_ray.ops.precision import Precision
from dfnas_ray.search_spaces.base import Genotype, SearchSpace
from dfnas_ray.training.batches import SyntheticBatches
from dfnas_ray.training.config import DistillationConfig

Measurement = dict[str, float]
"""What was measured of one candidate, by name; what it is worth may depend on those of others (`SearchAlgorithm.rank`)."""

MeasureCandidates = Callable[[Sequence[Genotype]], list[Measurement]]
"""Returns one measurement per candidate, in their order."""

HistoryEntry: TypeAlias = dict[str, Any]
"""What one epoch or one round of candidates showed: ``phase``, ``number`` and metrics; numbers, text and lists only."""

StateDict: TypeAlias = dict[str, Any]
"""Tensors, numbers and text only: it can be loaded with ``weights_only=True``."""

SCORE = "score"
"""The only figure of algorithms that measure a single one; higher is better."""


def _keep_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average over one process: nothing to do."""


@dataclass(frozen=True)
class SearchProblem:
    """What a search works on.

    Attributes:
        space: What is searched.
        train: Batches from which weights, and architecture parameters, are learned.
        validation: Batches that judge; no gradient ever comes from them.
        distillation: How the teacher is learned from.
        max_macs: Largest number of MACs of an architecture, or None.
        seed: Of all draws.
        precision: In which networks compute.
        average_gradients: Called between backward and the optimiser's step; where several processes search together it
            averages the gradients of the parameters over them.
        min_macs: Smallest number of MACs of an architecture, or None; given only to algorithms that keep to it.
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

    What it measures of a candidate must not depend on the others, nor on the order in which they come.
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
    """What the settings of all algorithms have in common.

    Attributes:
        kind: The name under which experiment files know the algorithm; each one defines its own, as a field.
        batch_size: Images per step; each one defines it as a field.
    """

    if TYPE_CHECKING:
        kind: str
        batch_size: int

    unsuitable_spaces: ClassVar[dict[str, str]] = {}
    """Kinds of spaces that it cannot search, each with the reason."""

    keeps_min_macs: ClassVar[bool] = False
    """Whether it proposes nothing below `search.min_macs`; the setting is refused where it does."""

    @property
    def label(self) -> str:
        """What results call it; variants of one kind may tell themselves apart here."""
        return self.kind

    @property
    @abstractmethod
    def steps_to_show(self) -> int:
        """How long a progress bar is: epochs, rounds, generations."""

    @abstractmethod
    def algorithm(self, problem: SearchProblem) -> SearchAlgorithm:
        """Return the algorithm, ready to run."""


class SearchAlgorithm(ABC):
    """How to search. Knows nothing of processes, files or clusters.

    Attributes:
        space: What is searched.
        num_epochs: Training epochs at most.
        epochs_done: How many are behind it.
    """

    space: SearchSpace
    num_epochs: int = 0
    epochs_done: int = 0

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
        """Take what was measured of the candidates of the last `ask`, and return their scores as they stand now."""
        raise NotImplementedError

    def scorer(self) -> Scorer:
        """Return what measures candidates with what was trained; a copy that can work in another process."""
        raise NotImplementedError

    def rank(self, measurements: Sequence[Measurement]) -> list[float]:
        """Return one score per measurement, higher is better; NaN where a candidate could not be measured.

        By default each is scored by itself. Algorithms that compare candidates with each other, such as those that add
        up ranks, look at all of them.
        """
        return [measurement[SCORE] for measurement in measurements]

    @abstractmethod
    def best(self) -> tuple[Genotype, float]:
        """Return the best architecture found, within the limit, and its score on the algorithm's own scale."""

    @abstractmethod
    def finalists(self, count: int) -> list[Genotype]:
        """Return up to ``count`` different architectures within the limit that deserve a closer look; `best` first."""

    @abstractmethod
    def state_dict(self) -> StateDict:
        """Return tensors, numbers and text only."""

    @abstractmethod
    def load_state_dict(self, state: StateDict) -> None:
        """Go on exactly where ``state_dict`` was called."""


def make_algorithm(config: BaseAlgorithmConfig, problem: SearchProblem) -> SearchAlgorithm:
    """Return the algorithm of these settings, ready to run.

    Raises:
        ConfigError: it is of another package, and does not keep the contract; names package, member and rule.
    """
    algorithm: object = config.algorithm(problem)
    if isinstance(algorithm, SearchAlgorithm):
        return algorithm
    assert not is_built_in(type(config))
    raise ConfigError(
        f"The algorithm {describe(type(config))} breaks its contract: algorithm() must return a SearchAlgorithm, not a "
        f"{type(algorithm).__name__}."
    )


@dataclass
class SearchState:
    """An algorithm on its way, and what happened so far.

    Attributes:
        history: One entry per epoch and round of candidates: ``phase``, ``number`` and metrics.
    """

    algorithm: SearchAlgorithm
    history: list[HistoryEntry] = field(default_factory=list)

    def run(
        self,
        on_progress: Callable[[SearchState], None] = lambda state: None,
        measure_with: Callable[[Scorer], MeasureCandidates] = lambda scorer: scorer,
    ) -> None:
        """Run to the end.

        Args:
            on_progress: Called after each epoch and each round of candidates: the place for a checkpoint.
            measure_with: Given the trained scorer, returns the function to call; it may spread candidates over machines.
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

    def train(self, on_progress: Callable[[SearchState], None] = lambda state: None) -> None:
        """Train to the last epoch: from then on candidates can be measured."""
        while self.algorithm.is_training:
            metrics = self.algorithm.train_epoch()
            self.history.append({"phase": "training", "number": self.algorithm.epochs_done, **metrics})
            on_progress(self)

    def state_dict(self) -> StateDict:
        """Return tensors, numbers and text only."""
        return {"algorithm": self.algorithm.state_dict(), "history": self.history}

    def load_state_dict(self, state: StateDict) -> None:
        """Go on exactly where ``state_dict`` was called."""
        self.algorithm.load_state_dict(state["algorithm"])
        self.history = list(state["history"])
