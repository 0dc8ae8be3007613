"""Training architectures alone, each from scratch: slow, but without the bias of shared weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch

from dfnas_ray.algorithms.base import SCORE, Measurement, SearchProblem, StateDict
from dfnas_ray.ops.networks import evaluation_mode
from dfnas_ray.ops.precision import Precision
from dfnas_ray.search_spaces.base import Genotype, SearchSpace
from dfnas_ray.seeding import derive_seed, seed_everything
from dfnas_ray.training.batches import SyntheticBatches
from dfnas_ray.training.config import DistillationConfig, OptimizerConfig
from dfnas_ray.training.student import Student, Validation, train_epoch, validate

Metric = Literal["loss", "agreement"]
"""What a network is judged by on the validation images: the distillation loss, or how often it agrees with the teacher."""


def score_of(validation: Validation, metric: Metric) -> float:
    """Return a score of which more is better."""
    return -validation.loss if metric == "loss" else validation.agreement


class CandidateTraining:
    """One architecture trained from scratch, an epoch at a time, so that it can stop and go on.

    How it goes depends on the architecture and the seed alone, not on who else is trained, nor on breaks.

    Args:
        space: Whose architecture it is.
        genotype: The architecture.
        train: The images to learn from.
        validation: The images that judge.
        distillation: How the teacher is learned from.
        optimizer: Of the training.
        rungs: Epochs, ascending, at which the training may end. At each the learning rate has fallen to its lowest, so that
            a network is judged when it has settled, however far it will be trained; after each it starts anew.
        seed: Of the initial weights.
        precision: In which the network computes.

    Attributes:
        epochs_done: How many are behind it.
    """

    def __init__(
        self,
        space: SearchSpace,
        genotype: Genotype,
        train: SyntheticBatches,
        validation: SyntheticBatches,
        distillation: DistillationConfig,
        optimizer: OptimizerConfig,
        rungs: Sequence[int],
        seed: int,
        precision: Precision = "float32",
    ):
        self.train, self.validation, self.temperature = train, validation, distillation.temperature
        self.seed = derive_seed(seed, "stand-alone", space.encode(genotype))
        self.epochs_done = 0
        seed_everything(self.seed)
        self.network = space.build(genotype).to(train.device)
        *restarts, total = (rung * len(train) for rung in rungs)
        self.student = Student(self.network, optimizer, self.temperature, total, precision, restarts=restarts)

    def train_epoch(self) -> float:
        """Train one epoch and return its mean loss."""
        loss = train_epoch(
            self.student, self.train, self.epochs_done, derive_seed(self.seed, "epoch", self.epochs_done)
        )
        self.epochs_done += 1
        return loss

    def validate(self) -> Validation:
        """Judge the network as it is."""
        evaluation_mode(self.network)
        return validate(self.network, self.validation.unvaried(), self.temperature)

    def train_to(self, epochs: int, on_epoch: Callable[[], None] = lambda: None) -> Validation:
        """Train until ``epochs`` are done, and judge; both figures are NaN if the training diverges.

        Args:
            epochs: In all; what is done already counts.
            on_epoch: Called after each epoch: the place for a checkpoint.
        """
        while self.epochs_done < epochs:
            loss = self.train_epoch()
            on_epoch()
            if not math.isfinite(loss):
                return Validation(math.nan, math.nan)
        result = self.validate()
        return result if math.isfinite(result.loss) else Validation(math.nan, math.nan)

    def state_dict(self) -> StateDict:
        """Return tensors and numbers only: the state can be loaded with ``weights_only=True``."""
        return {"student": self.student.state_dict(), "epochs_done": self.epochs_done}

    def load_state_dict(self, state: StateDict) -> None:
        """Go on exactly where ``state_dict`` was called."""
        self.student.load_state_dict(state["student"])
        self.epochs_done = state["epochs_done"]


@dataclass
class StandAloneScorer:
    """Trains each candidate from scratch; a score does not depend on who else is scored, or in which order.

    Attributes:
        space: Whose architectures are scored.
        train: The images to learn from.
        validation: The images that judge.
        epochs: Passes over the training images.
        seed: Of the initial weights.
        precision: In which networks compute while they are trained.
        restarts: Epochs at which the learning rate starts anew.
        metric: What the score is.
    """

    space: SearchSpace
    train: SyntheticBatches
    validation: SyntheticBatches
    distillation: DistillationConfig
    optimizer: OptimizerConfig
    epochs: int
    seed: int
    precision: Precision = "float32"
    restarts: Sequence[int] = ()
    metric: Metric = "loss"

    @classmethod
    def of(
        cls,
        problem: SearchProblem,
        optimizer: OptimizerConfig,
        epochs: int,
        restarts: Sequence[int] = (),
        metric: Metric = "loss",
    ) -> Self:
        """Return the scorer of a search's own images, seed and precision."""
        return cls(
            problem.space,
            problem.train,
            problem.validation,
            problem.distillation,
            optimizer,
            epochs,
            problem.seed,
            problem.precision,
            restarts,
            metric,
        )

    def __call__(self, genotypes: Sequence[Genotype]) -> list[Measurement]:
        """Return each candidate's score on the validation images; higher is better, NaN where the training diverges."""
        return [{SCORE: self._score(genotype)} for genotype in genotypes]

    def to(self, device: torch.device) -> None:
        """Move the images to a device."""
        self.train.to(device)
        self.validation.to(device)

    def _score(self, genotype: Genotype) -> float:
        training = CandidateTraining(
            self.space,
            genotype,
            self.train,
            self.validation,
            self.distillation,
            self.optimizer,
            (*self.restarts, self.epochs),
            self.seed,
            self.precision,
        )
        return score_of(training.train_to(self.epochs), self.metric)
