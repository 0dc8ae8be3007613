"""Scoring architectures by training each one alone for a short while: slow, but without the bias of shared weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from dfnas_ray.algorithms.base import SCORE, Measurement
from dfnas_ray.ops.precision import Precision
from dfnas_ray.search_spaces.base import Genotype, SearchSpace
from dfnas_ray.seeding import derive_seed, seed_everything
from dfnas_ray.training.batches import SyntheticBatches
from dfnas_ray.training.config import DistillationConfig, OptimizerConfig
from dfnas_ray.training.student import Student, validate


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
    """

    space: SearchSpace
    train: SyntheticBatches
    validation: SyntheticBatches
    distillation: DistillationConfig
    optimizer: OptimizerConfig
    epochs: int
    seed: int
    precision: Precision = "float32"

    def __call__(self, genotypes: Sequence[Genotype]) -> list[Measurement]:
        """Return minus the distillation loss on the validation images; higher is better."""
        return [{SCORE: self._score(genotype)} for genotype in genotypes]

    def to(self, device: torch.device) -> None:
        """Move the images to a device."""
        self.train.to(device)
        self.validation.to(device)

    def _score(self, genotype: Genotype) -> float:
        seed_everything(derive_seed(self.seed, "stand-alone", self.space.encode(genotype)))
        network = self.space.build(genotype).to(self.train.device)
        temperature = self.distillation.temperature
        student = Student(network, self.optimizer, temperature, self.epochs * len(self.train), self.precision)
        for epoch in range(self.epochs):
            for batch in self.train.epoch(epoch):
                student.step(batch)
        network.eval()
        return -validate(network, self.validation.unvaried(), temperature).loss
