r"""AZ-NAS: expressivity, progressivity and trainability of an untrained network, from one forward and backward pass.

Source: Lee & Ham 2024, arXiv:2403.19232; its fourth proxy, complexity, is the number of MACs. Written from the
formulas. Shapes: block l outputs features (B, c_l, h_l, w_l).

The paper's input is Gaussian noise. On synthetic or real images, progressivity ranks networks far less well
(experiments/results/ranking.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfnas_ray.algorithms.zero_cost.untrained import UntrainedNetwork

EXPRESSIVITY, PROGRESSIVITY, TRAINABILITY = "expressivity", "progressivity", "trainability"
_TINY = 1e-12


def az_nas(candidate: UntrainedNetwork) -> dict[str, float]:
    """Return expressivity, progressivity and trainability on the probe."""
    features = block_outputs(candidate.network, candidate.blocks, candidate.probe)
    return {**_entropy_figures(features), TRAINABILITY: trainability(features, candidate.generator)}


@torch.no_grad()
def entropies(candidate: UntrainedNetwork) -> dict[str, float]:
    r"""Return the figures of one forward pass; :math:`s_l` is the entropy of block l's features (`feature_entropy`).

    - expressivity: :math:`\sum_l s_l`;
    - progressivity: :math:`\min_{l \ge 2} (s_l - s_{l-1})`.
    """
    return _entropy_figures(block_outputs(candidate.network, candidate.blocks, candidate.probe))


def trainability(features: Sequence[Tensor], generator: torch.Generator) -> float:
    r"""Return the mean over blocks of :math:`2 - \sigma_l - 1 / \sigma_l`, at most 0.

    :math:`\sigma_l` is the largest singular value of the block's Jacobian (`jacobian_norm`); 1 keeps the size of a
    gradient. By the formula, a block that does nothing has the highest value.
    """
    norms = [jacobian_norm(before, after, generator) for before, after in pairwise(features)]
    return sum(2 - norm - 1 / norm if norm > 0 else -math.inf for norm in norms) / len(norms)


def _entropy_figures(features: Sequence[Tensor]) -> dict[str, float]:
    values = [feature_entropy(feature.detach()) for feature in features]
    return {EXPRESSIVITY: sum(values), PROGRESSIVITY: min(after - before for before, after in pairwise(values))}


def block_outputs(network: nn.Module, blocks: Sequence[nn.Module], images: Tensor) -> list[Tensor]:
    """Return each block's output (B, c_l, h_l, w_l), with its graph."""
    outputs: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        outputs.append(output)

    handles = [block.register_forward_hook(keep) for block in blocks]
    try:
        network(images.clone())  # the network may change its input
    finally:
        for handle in handles:
            handle.remove()
    return outputs


@torch.no_grad()
def feature_entropy(features: Tensor) -> float:
    r"""Return the entropy :math:`-\sum_i \tilde\lambda_i \log \tilde\lambda_i` of the principal components.

    :math:`\tilde\lambda` are the eigenvalues of the channels' covariance over images and pixels, scaled to a sum of 1.

    Args:
        features: (B, c, h, w).

    Returns:
        The entropy in nats: 0 if all features lie on a line or do not vary, log c if they fill all directions equally.
    """
    samples = features.transpose(0, 1).flatten(1).double()
    eigenvalues = torch.linalg.eigvalsh(torch.cov(samples, correction=0)).clamp_min(0)
    shares = eigenvalues / eigenvalues.sum().clamp_min(_TINY)
    return float(-(shares * shares.clamp_min(_TINY).log()).sum())


def jacobian_norm(before: Tensor, after: Tensor, generator: torch.Generator) -> float:
    r"""Estimate the spectral norm of a block's Jacobian between channels.

    With random signs v (Rademacher) at the output and :math:`g = J^T v` at the input, the mean :math:`E[g v^T]` over
    images and pixels is the Jacobian between equal pixels. If the block halves the size, all input pixels that belong
    to one output pixel count as channels.

    Args:
        before: The block's input (B, c, h, w), part of the graph of ``after``.
        after: Its output (B, c', h', w').
        generator: The random number generator of the signs, on the CPU.

    Returns:
        The norm; 0 if nothing passes from input to output.
    """
    if not (before.requires_grad and after.requires_grad):  # a block is cut off from its input
        return 0.0
    signs = (torch.randint(0, 2, after.shape, generator=generator) * 2 - 1).to(after)
    gradient: Tensor | None = torch.autograd.grad(after, before, signs, retain_graph=True, allow_unused=True)[0]
    if gradient is None:
        return 0.0
    rows, columns = (-(-before.shape[dim] // after.shape[dim]) for dim in (-2, -1))
    if rows > 1 or columns > 1:
        height, width = after.shape[-2] * rows, after.shape[-1] * columns
        gradient = F.pad(gradient, (0, width - gradient.shape[-1], 0, height - gradient.shape[-2]))
        gradient = gradient.unflatten(-1, (-1, columns)).unflatten(-3, (-1, rows))  # (B, c, h', rows, w', columns)
        gradient = gradient.permute(0, 1, 3, 5, 2, 4).flatten(1, 3)
    positions = signs.numel() // signs.shape[1]
    outgoing = signs.transpose(0, 1).flatten(1)
    incoming = gradient.transpose(0, 1).flatten(1)
    return float(torch.linalg.matrix_norm(incoming @ outgoing.T / positions, ord=2))
