"""Scoring architectures with a supernet's shared weights: by their outputs, or by how far training turned the weights.

BatchNorm statistics of a supernet mix all paths, so they are estimated anew for each candidate before it is scored.
Source: Guo et al. 2020, arXiv:1904.00420, Sec. 3.2. The angle: Zhang et al. 2021, arXiv:2101.11834, Sec. 3.2. It uses
no images to score, so it is a baseline for the scores that do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dfnas_ray.algorithms.base import SCORE, Measurement
from dfnas_ray.ops.mixed import Choice
from dfnas_ray.ops.networks import evaluation_mode
from dfnas_ray.ops.precision import Precision, autocast, autocast_dtype
from dfnas_ray.search_spaces.base import Genotype, SearchSpace, Supernet
from dfnas_ray.training.batches import StoredBatches
from dfnas_ray.training.student import validate

Fitness = Literal["agreement", "distillation_loss", "class_accuracy", "angle"]
"""agreement: with the teacher's class. distillation_loss: minus the loss. class_accuracy: accuracy on the class that an
image was made for. angle: by how much training turned the weights along the path, in radians."""


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
        supernet(images.clone(), choices)  # the network may change its input
    evaluation_mode(supernet)
    for module, momentum in zip(norms, momenta, strict=True):
        module.momentum = momentum


@dataclass
class OneShotScorer:
    """Scores candidates with a trained supernet; the order of the candidates does not matter.

    Attributes:
        space: The search space of the candidates.
        supernet: The trained supernet. Its weights are read, its BatchNorm statistics are overwritten.
        calibration: Training images (B, C, H, W), normalised.
        validation: Images and the teacher's logits on them.
        precision: The precision in which the supernet computes.
        fitness: The kind of score.
        labels: The classes (N,) that the validation images were made for, in their order.
        initial: The supernet before training; None unless the fitness is the angle.
    """

    space: SearchSpace
    supernet: Supernet
    calibration: list[Tensor]
    validation: StoredBatches
    fitness: Fitness
    temperature: float
    precision: Precision = "float32"
    labels: Tensor | None = None
    initial: Supernet | None = None

    def __call__(self, genotypes: Sequence[Genotype]) -> list[Measurement]:
        """Return the fitness of each genotype; higher is better."""
        return [{SCORE: self._score(genotype)} for genotype in genotypes]

    def to(self, device: torch.device) -> None:
        """Move the supernet and the images to a device."""
        self.supernet.to(device)
        if self.labels is not None:
            self.labels = self.labels.to(device)
        if self.initial is not None:
            self.initial.to(device)
        self.calibration = [images.to(device) for images in self.calibration]
        self.validation.to(device)

    def _score(self, genotype: Genotype) -> float:
        choices = self.space.choices(genotype)
        device = self.calibration[0].device
        if self.fitness == "angle":
            assert self.initial is not None
            return path_angle(self.initial, self.supernet, choices, self.calibration[0][:2])
        with autocast(device, autocast_dtype(self.precision, device)):
            reestimate_batch_norm(self.supernet, choices, self.calibration)
            if self.fitness == "class_accuracy":
                return self._class_accuracy(choices)
            result = validate(lambda images: self.supernet(images, choices), self.validation, self.temperature)
        return result.agreement if self.fitness == "agreement" else -result.loss

    @torch.no_grad()
    def _class_accuracy(self, choices: Sequence[Choice]) -> float:
        assert self.labels is not None
        right, done = 0, 0
        for batch in self.validation:
            named = self.supernet(batch.images, choices).argmax(1)
            right += int((named == self.labels[done : done + len(named)]).sum())
            done += len(named)
        return right / done


@torch.no_grad()
def path_angle(before: Supernet, after: Supernet, choices: Sequence[Choice], images: Tensor) -> float:
    r"""Return the angle between the weights along one path before and after training, in radians.

    :math:`\arccos \frac{\langle v_0, v \rangle}{\|v_0\| \|v\|}`, where v holds the weights of all convolutions and
    linear layers on the path, concatenated. The further training turned them, the faster they learned.

    Args:
        before: The supernet as it was initialised.
        after: The trained supernet.
        choices: The path.
        images: (B, C, H, W), normalised; one forward pass finds the layers on the path.
    """
    names = _passed(after, choices, images)
    first, last = dict(before.named_modules()), dict(after.named_modules())
    product = own = other = 0.0
    for name in names:
        a, b = (network[name].weight.double() for network in (first, last))
        product, own, other = product + float((a * b).sum()), own + float((a * a).sum()), other + float((b * b).sum())
    return math.acos(max(-1.0, min(1.0, product / math.sqrt(own * other)))) if own * other else 0.0


def _passed(supernet: Supernet, choices: Sequence[Choice], images: Tensor) -> list[str]:
    """Return the names of the convolutions and linear layers on a path."""
    passed: list[str] = []
    layers = {name: module for name, module in supernet.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}
    hooks = [
        module.register_forward_pre_hook(lambda module, inputs, name=name: passed.append(name))
        for name, module in layers.items()
    ]
    try:
        evaluation_mode(supernet)
        supernet(images.clone(), choices)
    finally:
        for hook in hooks:
            hook.remove()
    return list(dict.fromkeys(passed))
