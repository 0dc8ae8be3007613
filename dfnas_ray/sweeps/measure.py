"""Measuring one trial's images by every criterion that the sweep can."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfnas_ray.datasets import ImageDataset
from dfnas_ray.errors import DfnasError
from dfnas_ray.search_spaces.base import Genotype, SearchSpace
from dfnas_ray.seeding import derive_seed, numpy_generator, seed_everything
from dfnas_ray.storage.shards import SyntheticImages
from dfnas_ray.sweeps.config import StudentConfig, SweepConfig
from dfnas_ray.sweeps.objectives import OBJECTIVES
from dfnas_ray.synthesis.quality import measure_quality
from dfnas_ray.synthesis.regions import center_crop
from dfnas_ray.teachers.base import Teacher
from dfnas_ray.training.batches import SyntheticBatches
from dfnas_ray.training.config import DistillationConfig
from dfnas_ray.training.evaluation import evaluate_networks
from dfnas_ray.training.student import Student

_BATCH_SIZE = 250
_DRAWS = 200


@dataclass(frozen=True)
class Examination:
    """Images (N, C, H, W) of the reference settings, at the teacher's input size, and which setting made each (N,)."""

    images: Tensor
    settings: Tensor

    @staticmethod
    def of(parts: Sequence[SyntheticImages], teacher: Teacher, share: float) -> Examination:
        """Put together the images of the reference settings nearest to the teacher's BatchNorm statistics.

        Of the others, students could learn only how the teacher errs: on images of settings far from those statistics,
        agreement falls as students get better (experiments/results/sweeps.md). All examine if the teacher has no such
        statistics.

        Args:
            parts: The images of each reference setting; their canvases may differ in size.
            teacher: Whose statistics count.
            share: Of the settings, at least one.
        """
        gaps = [measure_quality(teacher, part).overall["domain_gap"] for part in parts]
        count = max(1, round(share * len(parts))) if np.isfinite(gaps).all() else len(parts)
        nearest = sorted(np.argsort(gaps, kind="stable")[:count].tolist())
        size = (teacher.image_shape[1], teacher.image_shape[2])
        crops = [center_crop(torch.from_numpy(parts[number].images.copy()), size) for number in nearest]
        numbers = [torch.full((len(parts[number]),), number) for number in nearest]
        return Examination(torch.cat(crops), torch.cat(numbers))


def proxy_architecture(space: SearchSpace, max_macs: int | None, seed: int) -> Genotype:
    """Return the student's architecture: the one with the most MACs of 200 drawn within the limit."""
    rng = numpy_generator(seed, "proxy-student")
    draws = [space.sample(rng) for _ in range(_DRAWS)]
    allowed = [draw for draw in draws if max_macs is None or space.cost(draw).macs <= max_macs]
    if not allowed:
        return min(draws, key=lambda draw: space.cost(draw).macs)
    return max(allowed, key=lambda draw: space.cost(draw).macs)


def train_student(
    network: nn.Module,
    images: SyntheticImages,
    teacher: Teacher,
    config: StudentConfig,
    distillation: DistillationConfig,
    seed: int,
    device: torch.device,
) -> nn.Module:
    """Distil the teacher into ``network`` for a fixed number of steps, however many images there are."""
    batches = SyntheticBatches(images, teacher, distillation, config.batch_size, seed, device)
    student = Student(network.to(device), config.optimizer, distillation.temperature, config.steps)
    step = epoch = 0
    while step < config.steps:
        for batch in batches.epoch(epoch):
            if step == config.steps:
                break
            student.step(batch)
            step += 1
        epoch += 1
    return network.eval()


def logit_correlation(student: Tensor, teacher: Tensor) -> Tensor:
    """Return Pearson's correlation of two networks' logits (N, num_classes), as a scalar.

    Over the classes of an image, and the mean over the images. Two classes are always correlated by 1 or -1: there, the
    difference of the logits is correlated over the images.

    It says more of a student than whether the likeliest class is the same, and nothing of how sure the student is: the
    relation that Huang et al. 2022 (arXiv:2205.10536) find to matter between student and teacher.
    """
    if student.shape[1] == 2:
        student, teacher = ((logits[:, 0] - logits[:, 1])[None] for logits in (student, teacher))
    first, second = (logits - logits.mean(1, keepdim=True) for logits in (student, teacher))
    return F.cosine_similarity(first, second).mean()


def student_proxy(student: nn.Module, teacher: Teacher, examination: Examination) -> float:
    """Return the correlation of student's and teacher's logits, on the reference setting where it is smallest.

    Which of the settings looks most like real images, nobody knows: a good student follows the teacher on all of them. A
    mean over the settings lets a student that excels on images like its own make up for others
    (experiments/results/sweeps.md).

    Args:
        student: On the teacher's device.
        teacher: Whom it learned from.
        examination: The images.
    """
    logits = [_logits(network, teacher, examination.images) for network in (student, teacher.model)]
    parts = [examination.settings == number for number in examination.settings.unique()]
    return float(torch.stack([logit_correlation(logits[0][part], logits[1][part]) for part in parts]).min())


@torch.no_grad()
def _logits(network: nn.Module, teacher: Teacher, images: Tensor) -> Tensor:
    """Return a network's logits (N, num_classes), on the CPU, for uint8 images (N, C, H, W) in the teacher's normalisation."""
    device = next(network.parameters()).device
    return torch.cat([network(teacher.normalize(part.to(device))).cpu() for part in images.split(_BATCH_SIZE)])


@dataclass(frozen=True)
class Judge:
    """Everything that is the same for all trials of a sweep.

    Attributes:
        space: Whose architectures the student is one of.
        genotype: The student's.
        verifier: An independent classifier of the same classes, if the user has one.
        labelled: Labelled real images, if the user gives some.
    """

    config: SweepConfig
    teacher: Teacher
    space: SearchSpace
    genotype: Genotype
    distillation: DistillationConfig
    examination: Examination
    seed: int
    verifier: Teacher | None = None
    labelled: ImageDataset | None = None

    @property
    def needs_student(self) -> bool:
        """Whether an objective trains one."""
        return bool({"student_proxy", "labelled_accuracy"} & set(self.config.objectives))

    def __call__(self, images: SyntheticImages, device: torch.device) -> dict[str, float]:
        """Return every figure that can be measured, by its name in `OBJECTIVES`.

        Raises:
            DfnasError: an objective cannot; says why.
        """
        teacher = self.teacher.to(device)
        quality = measure_quality(teacher, images).overall
        figures = {
            "semantics": quality["confidence"],
            "diversity": quality["diversity_distance"],
            "domain_gap": quality["domain_gap"],
        }
        if self.verifier is not None:
            figures["verifier_agreement"] = self._verify(self.verifier.to(device), images)
        if self.needs_student:
            # The same for every trial: what differs between two figures is then the images alone.
            seed = derive_seed(self.seed, "sweep-student")
            seed_everything(seed)
            network = self.space.build(self.genotype)
            student = train_student(network, images, teacher, self.config.student, self.distillation, seed, device)
            figures["student_proxy"] = student_proxy(student, teacher, self.examination)
            if self.labelled is not None:
                figures["labelled_accuracy"] = evaluate_networks({"student": student}, teacher, self.labelled, device)[
                    "student"
                ]
        for name in self.config.objectives:
            if not math.isfinite(figures[name]):
                raise DfnasError(f"These images have no value of the objective {name}: {OBJECTIVES[name].undefined}.")
        return {name: value for name, value in figures.items() if math.isfinite(value)}

    def _verify(self, verifier: Teacher, images: SyntheticImages) -> float:
        views = center_crop(torch.from_numpy(np.array(images.images)), self.teacher.image_shape[1:])
        seen = _logits(verifier.model, verifier, views).argmax(1)
        return float((seen == torch.from_numpy(images.logits.argmax(1))).float().mean())
