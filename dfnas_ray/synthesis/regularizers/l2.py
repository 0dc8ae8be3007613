"""R_l2: no pixel far from the mean. Source: Yin et al. 2020, arXiv:1912.08795, Sec. 3.1. Written from the formula."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from dfnas_ray.synthesis.regularizers.base import Regularizer, RegularizerConfig


def l2_loss(images: Tensor) -> Tensor:
    r"""Return the mean over images of :math:`\|x_i\|_2`; ``images`` is (B, C, H, W), normalised."""
    return torch.linalg.vector_norm(images.float().flatten(1), dim=1).mean()


class L2Config(RegularizerConfig):
    """R_l2: keeps pixels close to the mean colour."""

    kind: ClassVar[str] = "l2"

    weight: float = Field(1e-5, ge=0, description="Weight in the loss.")

    def loss(self) -> Regularizer:
        """Return the unweighted term as a plain function."""
        return lambda observation: l2_loss(observation.images)
