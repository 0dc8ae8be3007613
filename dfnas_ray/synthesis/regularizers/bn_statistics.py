"""R_bn: pull the batch statistics of synthetic images towards the teacher's.

Source: Yin et al. 2020, arXiv:1912.08795, Sec. 3.2. Written from the formula.
Shapes: B images, C channels, H x W pixels; one entry per BatchNorm layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from dfnas_ray.synthesis.regularizers.base import BatchNormInput, Regularizer


def bn_statistics_loss(layers: Sequence[BatchNormInput], first_layer_multiplier: float = 1.0) -> Tensor:
    r"""Return :math:`\sum_l m_l (\|\mu_l(x) - \mu_l\|_2 + \|\sigma_l^2(x) - \sigma_l^2\|_2)`.

    Args:
        layers: In forward order, at least one.
        first_layer_multiplier: :math:`m_1`; the other :math:`m_l` are 1.

    Returns:
        Scalar float32, also under autocast; 0 when every layer matches. Variances are biased, as BatchNorm's are.

    Raises:
        ValueError: ``layers`` is empty, i.e. the teacher has no BatchNorm.
    """
    if not layers:
        raise ValueError("bn_statistics_loss needs at least one BatchNorm layer")
    distances = []
    for x, running_mean, running_var in layers:
        dims = [0, *range(2, x.ndim)]
        var, mean = torch.var_mean(x.float(), dim=dims, correction=0)
        distances.append(torch.linalg.vector_norm(mean - running_mean) + torch.linalg.vector_norm(var - running_var))
    return first_layer_multiplier * distances[0] + sum(distances[1:], start=torch.zeros_like(distances[0]))


class BNStatisticsConfig(BaseModel):
    """R_bn, the term that decides most: 0.01 for ImageNet, 1 to 10 for small images."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: float = Field(0.01, ge=0, description="Weight in the loss; 0 for a teacher without BatchNorm.")
    first_layer_multiplier: float = Field(10.0, ge=0, description="Weight of the first layer beside the others' 1.")

    def loss(self) -> Regularizer:
        """Return the unweighted term as a plain function."""
        multiplier = self.first_layer_multiplier
        return lambda observation: bn_statistics_loss(observation.bn_inputs, multiplier)
