"""Scoring architectures with a supernet's shared weights.

BatchNorm statistics of a supernet mix all paths, so they are estimated anew for each candidate before it is scored.
Source: Guo et al. 2020, arXiv:1904.00420, Sec. 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from dfnas_ray.algorithms.base import SCORE, Measurement
from dfnas_ray.ops.mixed import Choice
from dfnas_ray.ops.networks import evaluation_mode
from dfnas_ray.ops.precision import Precision, autocast, autocast_dtype
from dfnas_ray.search_spaces.base import Genotype, SearchSpace, Supernet
from dfnas_ray.training.batches import Batch
from dfnas_ray.training.student import validate

Fitness = Literal["agreement", "distillation_loss"]


@torch.no_grad()
def reestimate_batch_norm(supernet: Supernet, choices: Sequence[Choice], batches: Sequence[Tensor]) -> None:
    """Set the running statistics along one path to the plain average over ``batches`` of images (B, C, H, W).

    The supernet is left in evaluation mode.
    """
    norms = [module for module in supernet.modules() if isinstance(module, _BatchNorm)]
    momenta = [module.momentum for module in norms]
    for module in norms:
        module.reset_running_stats()
        module.momentum = None  # a cumulative average
    supernet.train()
    for images in batches:
        supernet(images.clone(), choices)  # kept for the next candidate
    evaluation_mode(supernet)
    for module, momentum in zip(norms, momenta, strict=True):
        module.momentum = momentum


@dataclass
class OneShotScorer:
    """Scores candidates with a trained supernet; independent of the order in which they come.

    Attributes:
        space: Whose architectures are scored.
        supernet: Its weights are read, its BatchNorm statistics are overwritten.
        calibration: Training images (B, C, H, W), normalised.
        validation: Images and the teacher's logits on them.
        precision: In which the supernet computes.
        fitness: ``agreement`` with the teacher's class, or minus the distillation loss.
    """

    space: SearchSpace
    supernet: Supernet
    calibration: list[Tensor]
    validation: list[Batch]
    fitness: Fitness
    temperature: float
    precision: Precision = "float32"

    def __call__(self, genotypes: Sequence[Genotype]) -> list[Measurement]:
        """Return the fitness of each genotype; higher is better."""
        return [{SCORE: self._score(genotype)} for genotype in genotypes]

    def to(self, device: torch.device) -> None:
        """Move supernet and images to a device."""
        self.supernet.to(device)
        self.calibration = [images.to(device) for images in self.calibration]
        self.validation = [Batch(*(tensor.to(device) for tensor in batch)) for batch in self.validation]

    def _score(self, genotype: Genotype) -> float:
        choices = self.space.choices(genotype)
        device = self.calibration[0].device
        with autocast(device, autocast_dtype(self.precision, device)):
            reestimate_batch_norm(self.supernet, choices, self.calibration)
            result = validate(lambda images: self.supernet(images, choices), self.validation, self.temperature)
        return result.agreement if self.fitness == "agreement" else -result.loss
