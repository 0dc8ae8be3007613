"""What can be known to fail before the first step of synthesis."""

from __future__ import annotations

import torch

from dfnas_ray.errors import SynthesisError, first_line
from dfnas_ray.synthesis.config import SynthesisConfig
from dfnas_ray.teachers.base import Teacher


def check_synthesis(teacher: Teacher, config: SynthesisConfig) -> None:
    """Make sure that these images can be asked of this teacher.

    Raises:
        SynthesisError: the teacher has no BatchNorm for R_bn, does not take a stage's size, or its images cannot be
            stored.
    """
    channels, height, width = teacher.image_shape
    if channels not in (1, 3):
        raise SynthesisError(
            f"Teacher {teacher.name} takes {channels} channels; synthetic images are stored as PNG, which has 1 or 3."
        )
    if config.regularizers.bn_statistics.weight > 0 and not teacher.batch_norms():
        raise SynthesisError(
            f"Teacher {teacher.name} has no BatchNorm layer with running statistics, so there is nothing that R_bn could "
            "match. Set synthesis.regularizers.bn_statistics.weight=0 to leave the term out; expect images further from "
            "the real ones."
        )
    try:
        config.canvas_size(height, width)
    except ValueError as error:
        raise SynthesisError(str(error)) from error
    for scale in {stage.scale for stage in config.stages}:
        check_size(teacher, (height // scale, width // scale), scale)


@torch.no_grad()
def check_size(teacher: Teacher, size: tuple[int, int], scale: int) -> None:
    """Make sure that the teacher takes images of the size of one stage.

    Raises:
        SynthesisError: it does not; says how to do without the stage.
    """
    try:
        teacher.model(torch.zeros(1, teacher.image_shape[0], *size))
    except Exception as error:  # a model may refuse in any way; some assert
        raise SynthesisError(
            f"Teacher {teacher.name} does not take images of {size[0]}x{size[1]}, the size at scale {scale} of "
            f"synthesis.stages ({first_line(error)}). Use a single stage of scale 1: "
            "--set 'synthesis.stages=[{scale: 1, steps: 5000}]'."
        ) from error
