"""Measuring one trial's images by every criterion that the sweep can."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfnas_ray.config.registry import describe
from dfnas_ray.datasets import ImageDataset
from dfnas_ray.errors import DfnasError
from dfnas_ray.ops.networks import device_of, evaluation_mode
from dfnas_ray.search_spaces.base import Genotype, SearchSpace
from dfnas_ray.seeding import derive_seed, numpy_generator, seed_everything
from dfnas_ray.storage.shards import SyntheticImages
from dfnas_ray.sweeps.config import StudentConfig, SweepConfig
from dfnas_ray.sweeps.judged import Examination, JudgedTrial
from dfnas_ray.sweeps.objectives import OBJECTIVES
from dfnas_ray.teachers.base import Teacher
from dfnas_ray.training.batches import SyntheticBatches
from dfnas_ray.training.config import DistillationConfig
from dfnas_ray.training.student import Student

_BATCH_SIZE = 250
_DRAWS = 200


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
    return evaluation_mode(network)


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
    logits = [logits_of(network, teacher, examination.images) for network in (student, teacher.model)]
    parts = [examination.settings == number for number in examination.settings.unique()]
    return float(torch.stack([logit_correlation(logits[0][part], logits[1][part]) for part in parts]).min())


@torch.no_grad()
def logits_of(network: nn.Module, teacher: Teacher, images: Tensor) -> Tensor:
    """Return a network's logits (N, num_classes), on the CPU, for uint8 images (N, C, H, W) in the teacher's normalisation."""
    device = device_of(network)
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
        return any(OBJECTIVES.find(name).needs_student for name in self.config.objectives)

    def __call__(self, images: SyntheticImages, device: torch.device) -> dict[str, float]:
        """Return the figures of the sweep's objectives, and those of this package that cost no training, by their names.

        Raises:
            DfnasError: an objective cannot be measured; says why.
        """
        teacher = self.teacher.to(device)

        def train() -> nn.Module:
            # The same for every trial: what differs between two figures is then the images alone.
            seed = derive_seed(self.seed, "sweep-student")
            seed_everything(seed)
            network = self.space.build(self.genotype)
            return train_student(network, images, teacher, self.config.student, self.distillation, seed, device)

        trial = JudgedTrial(images, teacher, device, self.examination, train, self.verifier, self.labelled)
        figures = {}
        for name in self._measured():
            objective = OBJECTIVES.find(name)
            value: object = objective().measure(trial)
            if not isinstance(value, int | float):
                raise DfnasError(
                    f"The sweep objective {describe(objective)} breaks its contract: measure() must return a number, not a "
                    f"{type(value).__name__}."
                )
            figures[name] = value
        for name in self.config.objectives:
            if not math.isfinite(figures[name]):
                reason = OBJECTIVES.find(name).undefined
                raise DfnasError(f"These images have no value of the objective {name}: {reason}.")
        return {name: value for name, value in figures.items() if math.isfinite(value)}

    def _measured(self) -> list[str]:
        """Return the objectives, and those of this package for which everything is there."""
        names = list(self.config.objectives)
        for name in OBJECTIVES.built_in:
            objective = OBJECTIVES.find(name)
            has_needs = objective.needs is None or getattr(self, objective.needs) is not None
            if name not in names and has_needs and (self.needs_student or not objective.needs_student):
                names.append(name)
        return names
