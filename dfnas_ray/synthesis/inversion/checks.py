"""Check before the first step that a teacher accepts images of every scale."""

from __future__ import annotations

import torch

from dfnas_ray.errors import SynthesisError, first_line
from dfnas_ray.teachers.base import Teacher


@torch.no_grad()
def check_size(teacher: Teacher, size: tuple[int, int], scale: int) -> None:
    """Make sure that the teacher accepts images of one scale.

    Raises:
        SynthesisError: it does not; says how to leave the scale out.
    """
    try:
        teacher.model(torch.zeros(1, teacher.image_shape[0], *size))
    except Exception as error:  # a model may refuse in any way; some assert
        raise SynthesisError(
            f"Teacher {teacher.name} does not take images of {size[0]}x{size[1]}, the size at scale {scale} of "
            f"synthesis.method.scales ({first_line(error)}). Use a single scale of 1: "
            "--set 'synthesis.method.scales=[{scale: 1, steps: 5000}]'."
        ) from error
