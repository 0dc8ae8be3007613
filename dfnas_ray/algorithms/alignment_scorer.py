"""Measuring how well a candidate follows the teacher: a few steps on given synthetic batches, then held-out batches.

The loss is the distillation loss plus, for each pair of stages, a term for representations that are not aligned:

    loss = T^2 KL(teacher || student) + weight * sum over stages (1 - CKA(teacher's features, student's features))

Every candidate sees the same batches in the same order. So the teacher runs once on each batch, and only its logits and
one Gram matrix per stage are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from dfnas_ray.algorithms.base import BaseAlgorithmConfig, Measurement, SearchProblem
from dfnas_ray.algorithms.feature_stages import (
    FeatureStage,
    Size,
    find_stages,
    forward_with_features,
    pair_stages,
)
from dfnas_ray.algorithms.representation import Kernel, gram, normalize
from dfnas_ray.errors import ConfigError
from dfnas_ray.limits import MANY, WIDE
from dfnas_ray.ops.precision import Precision, autocast, autocast_dtype
from dfnas_ray.search_spaces.base import Genotype, SearchSpace
from dfnas_ray.seeding import derive_seed, seed_everything
from dfnas_ray.training.batches import Batch
from dfnas_ray.training.config import OptimizerConfig
from dfnas_ray.training.student import Student, read_losses, validate


class AlignmentSettings(BaseAlgorithmConfig):
    """How one candidate is trained and measured."""

    steps: int = Field(
        30, ge=0, le=MANY, description="Optimiser steps of each candidate; 0 measures untrained networks."
    )
    batches: int = Field(
        30, gt=0, le=MANY, description="Number of different training batches, used in turn; 1 repeats a single batch."
    )
    batch_size: int = Field(64, gt=1, le=MANY, description="Images per step; features are compared between them.")
    validation_batches: int = Field(
        4, gt=0, le=MANY, description="Largest number of held-out batches on which candidates are measured."
    )
    optimizer: OptimizerConfig = OptimizerConfig()
    weight: float = Field(1.0, ge=0, description="Weight of each stage's misalignment in the loss; 0 only distils.")
    kernel: Kernel = Field("linear", description="Kernel of the Gram matrices of features.")
    unbiased: bool = Field(
        False, description="Use the unbiased estimate; in small batches, the biased one makes all wide features agree."
    )
    feature_size: int = Field(8, gt=0, le=WIDE, description="Pixels a side to which larger features are pooled.")


class ObservedBatch(NamedTuple):
    """A batch and the teacher's logits and features on it.

    Attributes:
        batch: Images and logits.
        grams: (stages, B, B), normalised Gram matrices of the teacher's features.
    """

    batch: Batch
    grams: Tensor


def stage_grams(features: Iterable[Tensor], settings: AlignmentSettings) -> Tensor:
    """Return the normalised Gram matrices (stages, B, B) of features (B, C, H, W) of several stages."""
    rows = []
    for feature in features:
        height, width = feature.shape[-2:]
        size = (min(height, settings.feature_size), min(width, settings.feature_size))
        if size != (height, width):
            feature = F.adaptive_avg_pool2d(feature, size)
        # In channels_last this order needs no copy; a Gram matrix does not depend on the order.
        rows.append(gram(feature.permute(0, 2, 3, 1).flatten(1), settings.kernel))
    return normalize(torch.stack(rows), settings.unbiased)


@dataclass
class AlignmentScorer:
    """Trains each candidate for a few steps and measures it; the other candidates and their order do not matter.

    Attributes:
        space: The search space of the candidates.
        settings: Settings of training and measurement.
        temperature: Temperature of the distillation.
        train: Training batches, in order.
        validation: Batches on which candidates are measured.
        teacher_sizes: (H, W) of each stage of the teacher; the batches have one Gram matrix for each.
        seed: The seed of the initial weights.
        precision: The precision in which networks compute.
    """

    space: SearchSpace
    settings: AlignmentSettings
    temperature: float
    train: list[ObservedBatch]
    validation: list[ObservedBatch]
    teacher_sizes: list[Size]
    seed: int
    precision: Precision = "float32"

    def __call__(self, genotypes: Sequence[Genotype]) -> list[Measurement]:
        """Return for each genotype, on the validation batches,

        - ``alignment``: CKA with the teacher, averaged over pairs of stages, and ``alignment_N`` of the Nth pair;
        - ``loss`` of the distillation, and ``agreement``: share of images with the teacher's class;

        and, as means over the training steps (the area under the curve):

        - ``train_alignment`` and ``train_loss``; 0 without steps.
        """
        return [self._measure(genotype) for genotype in genotypes]

    def to(self, device: torch.device) -> None:
        """Move the batches to a device."""
        self.train, self.validation = (
            [ObservedBatch(Batch(*(t.to(device) for t in batch)), grams.to(device)) for batch, grams in side]
            for side in (self.train, self.validation)
        )

    def _measure(self, genotype: Genotype) -> Measurement:
        seed_everything(derive_seed(self.seed, "alignment", self.space.encode(genotype)))
        device = self.validation[0].grams.device
        network = self.space.build(genotype).to(device)
        student = Student(network, self.settings.optimizer, self.temperature, self.settings.steps, self.precision)
        candidate = _Candidate(network, self.space.image_shape, self.teacher_sizes, self.settings)
        steps = [self._step(student, candidate, number) for number in range(self.settings.steps)]
        # Running statistics lag behind after a few steps, so BatchNorm keeps using those of the batch.
        network.train()
        alignments, validations = [], []
        for batch, grams in self.validation:
            with autocast(device, autocast_dtype(self.precision, device)):
                validations.append(validate(candidate, [batch], self.temperature))
            alignments.append(candidate.alignment(grams))
        by_stage = torch.stack(alignments).mean(0)
        return {
            "alignment": by_stage.mean().item(),
            **{f"alignment_{number}": value for number, value in enumerate(by_stage.tolist(), start=1)},
            "loss": sum(result.loss for result in validations) / len(validations),
            "agreement": sum(result.agreement for result in validations) / len(validations),
            "train_alignment": sum(read_losses([alignment for alignment, _ in steps])) / max(1, len(steps)),
            "train_loss": sum(read_losses([loss for _, loss in steps])) / max(1, len(steps)),
        }

    def _step(self, student: Student, candidate: _Candidate, number: int) -> tuple[Tensor, Tensor]:
        """Take one step; return the mean alignment and the distillation loss from before the step."""
        batch, grams = self.train[number % len(self.train)]
        alignment = torch.empty(0)

        def misalignment() -> Tensor:
            nonlocal alignment
            alignment = candidate.alignment(grams)
            return self.settings.weight * (1 - alignment).sum()

        loss = student.step(batch, candidate, misalignment)
        return alignment.mean().detach(), loss


class _Candidate:
    """A network whose stages are paired with the teacher's; each forward pass stores the features of its stages."""

    def __init__(
        self,
        network: nn.Module,
        image_shape: tuple[int, int, int],
        teacher_sizes: Sequence[Size],
        settings: AlignmentSettings,
    ):
        stages = find_stages(network, image_shape)
        pairs = pair_stages(teacher_sizes, [stage.size for stage in stages])
        self.network, self.settings = network, settings
        self.partners = [of_teacher for of_teacher, _ in pairs]
        self.stages = [stages[of_network] for _, of_network in pairs]
        self.features: list[Tensor] = []

    def __call__(self, images: Tensor) -> Tensor:
        logits, self.features = forward_with_features(self.network, self.stages, images)
        return logits

    def alignment(self, teacher_grams: Tensor) -> Tensor:
        """Return the CKA (pairs,) of the last features with the teacher's normalised Gram matrices (stages, B, B)."""
        return (stage_grams(self.features, self.settings) * teacher_grams[self.partners]).sum((-2, -1))


def make_scorer(settings: AlignmentSettings, problem: SearchProblem) -> AlignmentScorer:
    """Run the teacher on the batches of a problem, and return a scorer that does not need the teacher any more.

    Raises:
        ConfigError: the batches are too small, or a network has no features to compare.
    """
    space, teacher = problem.space, problem.train.model
    stages = find_stages(teacher, space.image_shape)
    for name, found in (
        ("the teacher", stages),
        (f"the search space {space.kind}", find_stages(space.build(space.cheapest()), space.image_shape)),
    ):
        if not found:
            raise ConfigError(
                f"search.algorithm: alignment compares feature maps (B, C, H, W) larger than 1x1, and {name} has none on "
                f"images of {space.image_shape}. Take another algorithm, such as random_search."
            )
    sides = []
    for name, batches, number in (
        ("training", problem.train, min(settings.batches, max(1, settings.steps))),
        ("validation", problem.validation, min(settings.validation_batches, len(problem.validation))),
    ):
        taken = batches.first(number)
        size, smallest = len(taken[0].images), 4 if settings.unbiased else 2
        if size < smallest:
            raise ConfigError(
                f"search.algorithm: alignment compares at least {smallest} images with each other"
                f"{' where unbiased is true' if settings.unbiased else ''}, and a {name} batch has {size}. Raise "
                "search.algorithm.batch_size, or make more images with synthesis.images_per_shard."
            )
        sides.append([_observe(teacher, stages, batch, settings) for batch in taken])
    return AlignmentScorer(
        space,
        settings,
        problem.distillation.temperature,
        sides[0],
        sides[1],
        [stage.size for stage in stages],
        problem.seed,
        problem.precision,
    )


@torch.no_grad()
def _observe(
    teacher: nn.Module, stages: Sequence[FeatureStage], batch: Batch, settings: AlignmentSettings
) -> ObservedBatch:
    return ObservedBatch(batch, stage_grams(forward_with_features(teacher, stages, batch.images)[1], settings))
