"""R_bn: pull the batch statistics of synthetic images towards the teacher's.

Source: Yin et al. 2020, arXiv:1912.08795, Sec. 3.2. Written from the formula.
Shapes: B images, C channels, H x W pixels; one entry per BatchNorm layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dfnas_ray.synthesis.regularizers.base import BatchNormInput, Regularizer, RegularizerConfig


class _StatisticsDistance(torch.autograd.Function):
    r"""One layer's :math:`\|\mu(x) - \mu\|_2 + \|\sigma^2(x) - \sigma^2\|_2`, with its gradient by hand.

    The gradient is linear in the input, channel by channel. Autograd does not see that: it takes the mean of the whole
    activation once more, and divides in every pixel. On a CPU, that is 7 % of a compiled synthesis step, and a quarter
    of an eager one.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, running_mean: Tensor, running_var: Tensor) -> Tensor:
        count = x.numel() // x.shape[1]
        mean_difference, var_difference = _differences(x, running_mean, running_var)
        mean_norm, var_norm = torch.linalg.vector_norm(mean_difference), torch.linalg.vector_norm(var_difference)
        # d/dx = offset + slope (x - running_mean); where a norm is 0, so is its gradient.
        tiny = torch.finfo(torch.float32).tiny
        slope = var_difference / var_norm.clamp_min(tiny) * (2 / count)
        offset = mean_difference / mean_norm.clamp_min(tiny) / count - slope * mean_difference
        ctx.save_for_backward(x, running_mean, slope, offset)
        return mean_norm + var_norm

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        x, running_mean, slope, offset = ctx.saved_tensors
        slope, offset = grad * slope, grad * offset
        if _has_kernels(x):
            return torch.batch_norm_elemt(x, slope, offset, running_mean, torch.ones_like(slope), 0.0), None, None
        slope, offset = _per_channel(slope, x), _per_channel(offset, x)
        gradient = offset + slope * (x.float() - _per_channel(running_mean, x))
        return gradient.to(x.dtype), None, None


def _differences(x: Tensor, running_mean: Tensor, running_var: Tensor) -> tuple[Tensor, Tensor]:
    """Return the batch's mean and biased variance less the running ones, float32 (C,)."""
    if _has_kernels(x):
        mean, var = torch.batch_norm_update_stats(x, None, None, 0.0)
        return mean - running_mean, var - running_var
    # Both moments in one pass. They are taken around the running mean, which is near, so that float32 loses no digits.
    dims = [0, *range(2, x.ndim)]
    centred = x.float() - _per_channel(running_mean, x)
    mean_difference = centred.mean(dims)
    return mean_difference, centred.square().mean(dims) - mean_difference.square() - running_var


def _has_kernels(x: Tensor) -> bool:
    """Return whether to use BatchNorm's own kernels: on a GPU without torch.compile, each one replaces 15 others."""
    return x.is_cuda and not torch.compiler.is_compiling()


def _per_channel(values: Tensor, x: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (x.ndim - 2))


def bn_statistics_loss(layers: Sequence[BatchNormInput], first_layer_multiplier: float = 1.0) -> Tensor:
    r"""Return :math:`\sum_l m_l (\|\mu_l(x) - \mu_l\|_2 + \|\sigma_l^2(x) - \sigma_l^2\|_2)`.

    Args:
        layers: In forward order, at least one. For a layer with ``past``, the average of earlier batches and this one
            is compared, so that a batch need not show the whole variety of the training data.
        first_layer_multiplier: :math:`m_1`; the other :math:`m_l` are 1.

    Returns:
        Scalar float32, also under autocast; 0 when every layer matches. Variances are biased, as BatchNorm's are.

    Raises:
        ValueError: ``layers`` is empty, i.e. the teacher has no BatchNorm.
    """
    if not layers:
        raise ValueError("bn_statistics_loss needs at least one BatchNorm layer")
    distances = [_distance(layer) for layer in layers]
    return first_layer_multiplier * distances[0] + sum(distances[1:], start=torch.zeros_like(distances[0]))


def _distance(layer: BatchNormInput) -> Tensor:
    r"""Return one layer's term.

    With earlier batches, :math:`\mu(x)` becomes :math:`\rho \bar\mu + (1 - \rho) \mu(x)`, and so does the variance. The
    distance of this average to the teacher's :math:`\mu` is :math:`1 - \rho` times the distance of :math:`\mu(x)` to
    :math:`(\mu - \rho \bar\mu) / (1 - \rho)`.
    """
    if layer.past is None:
        distance: Tensor = _StatisticsDistance.apply(layer.x, layer.running_mean, layer.running_var)
        return distance
    mean, var, share = layer.past
    wanted_mean, wanted_var = (
        (wanted - share * before) / (1 - share)
        for wanted, before in ((layer.running_mean, mean), (layer.running_var, var))
    )
    moved: Tensor = _StatisticsDistance.apply(layer.x, wanted_mean, wanted_var)
    return (1 - share) * moved


class BNStatisticsConfig(RegularizerConfig):
    """R_bn, the most important term. Use a weight of 0.01 for ImageNet, and 1 to 10 for small images."""

    kind: ClassVar[str] = "bn_statistics"
    observes: ClassVar[frozenset[str]] = frozenset({"bn_inputs"})

    weight: float = Field(0.01, ge=0, description="Weight in the loss; 0 for a teacher without BatchNorm.")
    first_layer_multiplier: float = Field(10.0, ge=0, description="Weight of the first layer; the others have 1.")

    def loss(self) -> Regularizer:
        """Return the unweighted term as a plain function."""
        multiplier = self.first_layer_multiplier
        return lambda observation: bn_statistics_loss(observation.bn_inputs, multiplier)

    def unsuitable(self, model: nn.Module) -> str:
        """Return that the teacher has no BatchNorm, if it has none; see `RegularizerConfig`."""
        reason = super().unsuitable(model)
        return reason and f"{reason}, so there is nothing that R_bn could match"
