"""The input of an objective: one trial's images, and everything that is the same for all trials."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from dfnas_ray.datasets import ImageDataset
from dfnas_ray.ops.regions import center_crop
from dfnas_ray.storage.shards import SyntheticImages
from dfnas_ray.synthesis.quality import measure_quality
from dfnas_ray.teachers.base import Teacher


@dataclass(frozen=True)
class Examination:
    """Images (N, C, H, W) of the reference settings, at the teacher's input size, and which setting made each (N,)."""

    images: Tensor
    settings: Tensor

    @staticmethod
    def of(parts: Sequence[SyntheticImages], teacher: Teacher, share: float) -> Examination:
        """Return the examination from the reference settings nearest to the teacher's BatchNorm statistics.

        On images far from these statistics, students can learn only the teacher's errors, and agreement falls as
        students get better (experiments/results/sweeps.md). If the teacher has no such statistics, all reference
        settings are used.

        Args:
            parts: The images of each reference setting; their canvases may differ in size.
            teacher: The teacher, whose statistics are compared.
            share: Share of the settings that are used, at least one setting.
        """
        gaps = [measure_quality(teacher, part).overall["domain_gap"] for part in parts]
        count = max(1, round(share * len(parts))) if np.isfinite(gaps).all() else len(parts)
        nearest = sorted(np.argsort(gaps, kind="stable")[:count].tolist())
        size = (teacher.image_shape[1], teacher.image_shape[2])
        crops = [center_crop(torch.from_numpy(parts[number].images.copy()), size) for number in nearest]
        numbers = [torch.full((len(parts[number]),), number) for number in nearest]
        return Examination(torch.cat(crops), torch.cat(numbers))


@dataclass(frozen=True)
class JudgedTrial:
    """The input of an objective.

    Attributes:
        images: The trial's images, with their labels and the teacher's logits.
        teacher: The teacher, on the device.
        device: The device to compute on.
        examination: Images on which every trial's student is examined.
        train: Trains the student on the trial's images; `student` calls it once.
        verifier: A second, independent classifier of the same classes, if there is one.
        labelled: Labelled real images, if there are any.
    """

    images: SyntheticImages
    teacher: Teacher
    device: torch.device
    examination: Examination
    train: Callable[[], nn.Module]
    verifier: Teacher | None = None
    labelled: ImageDataset | None = None

    @cached_property
    def quality(self) -> dict[str, float]:
        """The figures of `measure_quality` over the whole set."""
        return measure_quality(self.teacher, self.images).overall

    @cached_property
    def student(self) -> nn.Module:
        """The student that learned from these images."""
        return self.train()
