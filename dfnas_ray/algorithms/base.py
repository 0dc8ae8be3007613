"""The contract of a search algorithm, and the loop that runs any of them.

An algorithm trains (`train_epoch`, as often as `num_epochs` says), then proposes candidates (`ask`) and learns their
scores (`tell`) until it is finished. One that only does the one or the other leaves the other phase empty.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from dfnas_ray.search_spaces.base import Genotype, SearchSpace

ScoreCandidates = Callable[[Sequence[Genotype]], list[float]]
"""Returns one score per candidate, in their order; higher is better."""


class Scorer(Protocol):
    """A `ScoreCandidates` that can be sent to another process and placed on a device there."""

    def __call__(self, genotypes: Sequence[Genotype]) -> list[float]:
        """Return one score per candidate."""
        ...

    def to(self, device: torch.device) -> None:
        """Move everything to a device."""
        ...


class SearchAlgorithm(ABC):
    """How to search. Knows nothing of processes, files or clusters.

    Attributes:
        space: What is searched.
        num_epochs: Training epochs before candidates are proposed.
        epochs_done: How many are behind it.
    """

    space: SearchSpace
    num_epochs: int
    epochs_done: int

    @abstractmethod
    def train_epoch(self) -> dict[str, float]:
        """Train one epoch and return its metrics, ``loss`` among them."""

    @property
    @abstractmethod
    def is_finished(self) -> bool:
        """Whether nothing is left to train or to propose."""

    @abstractmethod
    def ask(self) -> list[Genotype]:
        """Return candidates to score."""

    @abstractmethod
    def tell(self, scores: Sequence[float]) -> None:
        """Take the scores of the candidates of the last `ask`."""

    @abstractmethod
    def scorer(self) -> Scorer:
        """Return what scores candidates with what was trained; a copy that can work in another process."""

    @abstractmethod
    def best(self) -> tuple[Genotype, float]:
        """Return the best architecture found and its score."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return tensors, numbers and text only."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly where ``state_dict`` was called."""


@dataclass
class SearchState:
    """An algorithm on its way, and what happened so far.

    Attributes:
        history: One entry per epoch and generation: ``phase``, ``number`` and metrics.
    """

    algorithm: SearchAlgorithm
    history: list[dict[str, Any]] = field(default_factory=list)

    def run(
        self,
        on_progress: Callable[[SearchState], None] = lambda state: None,
        score_with: Callable[[Scorer], ScoreCandidates] = lambda scorer: scorer,
    ) -> None:
        """Run to the end.

        Args:
            on_progress: Called after each epoch and each generation: the place for a checkpoint.
            score_with: Given the trained scorer, returns the function to call; it may spread candidates over machines.
        """
        algorithm = self.algorithm
        while algorithm.epochs_done < algorithm.num_epochs:
            metrics = algorithm.train_epoch()
            self.history.append({"phase": "training", "number": algorithm.epochs_done, **metrics})
            on_progress(self)
        score = score_with(algorithm.scorer()) if not algorithm.is_finished else None
        while not algorithm.is_finished:
            assert score is not None
            candidates = algorithm.ask()
            scores = score(candidates)
            algorithm.tell(scores)
            number = 1 + sum(entry["phase"] == "evolution" for entry in self.history)
            self.history.append(
                {
                    "phase": "evolution",
                    "number": number,
                    "best": algorithm.best()[1],
                    "scores": list(scores),
                    "genotypes": [algorithm.space.encode(candidate) for candidate in candidates],
                }
            )
            on_progress(self)

    def state_dict(self) -> dict[str, Any]:
        """Return tensors, numbers and text only."""
        return {"algorithm": self.algorithm.state_dict(), "history": self.history}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly where ``state_dict`` was called."""
        self.algorithm.load_state_dict(state["algorithm"])
        self.history = list(state["history"])
