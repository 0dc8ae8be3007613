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
"""The figure that judges a network on the validation images: the distillation loss, or agreement with the teacher."""


def score_of(validation: Validation, metric: Metric) -> float:
    """Return the score by one metric; higher is better."""
    return -validation.loss if metric == "loss" else validation.agreement


class CandidateTraining:
    """One architecture trained from scratch, one epoch at a time, so that the training can stop and resume.

    The result depends only on the architecture and the seed, not on other candidates or on interruptions.

    Args:
        space: The search space of the architecture.
        genotype: The architecture.
        train: The images to learn from.
        validation: The images on which the network is judged.
        distillation: Settings of the distillation from the teacher.
        optimizer: Settings of the optimiser.
        rungs: Epochs, ascending, at which the training may end. The learning rate falls to its lowest value at each
            rung and then restarts. So a network is judged with a settled learning rate, however far it is trained
            later.
        seed: The seed of the initial weights.
        precision: The precision in which the network computes.

    Attributes:
        epochs_done: Number of epochs trained so far.
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
        """Return the current network's results on the validation images."""
        evaluation_mode(self.network)
        return validate(self.network, self.validation.unvaried(), self.temperature)

    def train_to(self, epochs: int, on_epoch: Callable[[], None] = lambda: None) -> Validation:
        """Train until ``epochs`` are done, and validate; both figures are NaN if the training diverges.

        Args:
            epochs: Total number of epochs, including those already done.
            on_epoch: Called after each epoch, for example to write a checkpoint.
        """
        while self.epochs_done < epochs:
            loss = self.train_epoch()
            on_epoch()
            if not math.isfinite(loss):
                return Validation(math.nan, math.nan)
        result = self.validate()
        return result if math.isfinite(result.loss) else Validation(math.nan, math.nan)

    def state_dict(self) -> StateDict:
        """Return the state as tensors and numbers only, so that it can be loaded with ``weights_only=True``."""
        return {"student": self.student.state_dict(), "epochs_done": self.epochs_done}

    def load_state_dict(self, state: StateDict) -> None:
        """Resume exactly where ``state_dict`` was called."""
        self.student.load_state_dict(state["student"])
        self.epochs_done = state["epochs_done"]


@dataclass
class StandAloneScorer:
    """Trains each candidate from scratch; a score does not depend on the other candidates or on their order.

    Attributes:
        space: The search space of the candidates.
        train: The images to learn from.
        validation: The images on which candidates are judged.
        epochs: Passes over the training images.
        seed: The seed of the initial weights.
        precision: The precision in which networks compute while they are trained.
        restarts: Epochs at which the learning rate restarts.
        metric: The figure that gives the score.
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
        """Return a scorer with the images, seed and precision of a search."""
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
