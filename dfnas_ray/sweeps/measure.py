"""Measurement of one trial's images by every objective that can be measured."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfnas_ray.config.registry import describe
from dfnas_ray.datasets import ImageDataset
from dfnas_ray.errors import DfnasError
from dfnas_ray.ops.batching import batch_size_for
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
from dfnas_ray.training.device_images import DeviceImages
from dfnas_ray.training.student import Student

_BATCH_SIZE = 250
_DRAWS = 200


def proxy_architecture(space: SearchSpace, max_macs: int | None, seed: int) -> Genotype:
    """Return the student's architecture: of 200 random ones, the one with the most MACs within the limit.

    If none of them is within the limit, the smallest is returned.
    """
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
    """Distil the teacher into ``network`` for a fixed number of steps, for any number of images; return the network."""
    batches = SyntheticBatches(DeviceImages(images, device), teacher, distillation, config.batch_size, seed)
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

    The correlation is computed over the classes of each image, and averaged over the images. With two classes it would
    always be 1 or -1. There, the difference of the two logits is correlated over the images instead.

    It says more about a student than agreement on the most likely class, and it does not depend on the student's
    confidence. Huang et al. 2022 (arXiv:2205.10536) find that this relation matters between student and teacher.
    """
    if student.shape[1] == 2:
        student, teacher = ((logits[:, 0] - logits[:, 1])[None] for logits in (student, teacher))
    first, second = (logits - logits.mean(1, keepdim=True) for logits in (student, teacher))
    return F.cosine_similarity(first, second).mean()


def student_proxy(student: nn.Module, teacher: Teacher, examination: Examination) -> float:
    """Return the correlation of the student's and the teacher's logits on the reference setting where it is smallest.

    It is not known which setting looks most like real images, so a good student must follow the teacher on all of them.
    With a mean over the settings, a student could make up for bad results by excelling on images like its own
    (experiments/results/sweeps.md).

    Args:
        student: The student, on the teacher's device.
        teacher: The teacher that it learned from.
        examination: The images of the reference settings.
    """
    logits = [logits_of(network, teacher, examination.images) for network in (student, teacher.model)]
    parts = [examination.settings == number for number in examination.settings.unique()]
    return float(torch.stack([logit_correlation(logits[0][part], logits[1][part]) for part in parts]).min())


@torch.no_grad()
def logits_of(network: nn.Module, teacher: Teacher, images: Tensor) -> Tensor:
    """Return a network's logits (N, num_classes), on the CPU, for uint8 images (N, C, H, W) in the teacher's normalisation."""
    device = device_of(network)
    parts = images.split(batch_size_for(teacher.image_shape, _BATCH_SIZE, device))
    return torch.cat([network(teacher.normalize(part.to(device))).cpu() for part in parts])


@dataclass(frozen=True)
class Judge:
    """Measures the objectives of a trial; it holds everything that is the same for all trials of a sweep.

    Attributes:
        space: The search space of the student.
        genotype: The student's architecture.
        verifier: A second, independent classifier of the same classes, if there is one.
        labelled: Labelled real images, if there are any.
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
        """Whether an objective needs a trained student."""
        return any(OBJECTIVES.find(name).needs_student for name in self.config.objectives)

    def __call__(self, images: SyntheticImages, device: torch.device) -> dict[str, float]:
        """Return the figures of the sweep's objectives, and of built-in ones that cost no extra training, by name.

        Raises:
            DfnasError: an objective cannot be measured; the message says why.
        """
        teacher = self.teacher.to(device)

        def train() -> nn.Module:
            # The seed is the same for every trial, so that figures differ only because of the images.
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
                raise DfnasError(f"The objective {name} has no value for these images: {reason}.")
        return {name: value for name, value in figures.items() if math.isfinite(value)}

    def _measured(self) -> list[str]:
        """Return the sweep's objectives and all other built-in objectives for which everything needed is available."""
        names = list(self.config.objectives)
        for name in OBJECTIVES.built_in:
            objective = OBJECTIVES.find(name)
            has_needs = objective.needs is None or getattr(self, objective.needs) is not None
            if name not in names and has_needs and (self.needs_student or not objective.needs_student):
                names.append(name)
        return names
