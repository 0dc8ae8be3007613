"""R_tv: neighbouring pixels should be alike.

Source: Mahendran & Vedaldi 2015, arXiv:1412.0035, in the form of Yin et al. 2020, arXiv:1912.08795, Sec. 3.1, with the
two diagonals. Written from the formula.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from dfnas_ray.synthesis.regularizers.base import Regularizer, RegularizerConfig


def total_variation_loss(images: Tensor) -> Tensor:
    r"""Return the sum of :math:`\|\Delta x\|_2` over the horizontal, vertical and both diagonal differences.

    Args:
        images: (B, C, H, W); each norm runs over the whole batch.

    Returns:
        Scalar; 0 for images of one colour.
    """
    x = images.float()
    differences = (
        x[..., :, 1:] - x[..., :, :-1],
        x[..., 1:, :] - x[..., :-1, :],
        x[..., 1:, 1:] - x[..., :-1, :-1],
        x[..., 1:, :-1] - x[..., :-1, 1:],
    )
    return torch.stack([torch.linalg.vector_norm(difference) for difference in differences]).sum()


class TotalVariationConfig(RegularizerConfig):
    """R_tv: reduces high-frequency noise."""

    kind: ClassVar[str] = "total_variation"

    weight: float = Field(1e-4, ge=0, description="Weight in the loss; 2.5e-5 for CIFAR-sized images.")

    def loss(self) -> Regularizer:
        """Return the unweighted term as a plain function."""
        return lambda observation: total_variation_loss(observation.images)
