"""SynFlow: how much synaptic flow passes through a network's weights, without any image.

Source: Tanaka et al. 2020, arXiv:2006.05467; as a score of architectures Abdelfattah et al. 2021,
arXiv:2101.08134, Sec. 3. Written from the formula.
"""

from __future__ import annotations

import copy
import math

import torch

from dfnas_ray.algorithms.zero_cost.candidate import Candidate, evaluation_mode, weighted_layers


def synflow(candidate: Candidate) -> float:
    r"""Return :math:`\log \sum_\theta |\theta \, \partial R / \partial \theta|` over all weights.

    :math:`R = 1^T f_{|\theta|}(1)`: the sum of the outputs for an input of ones, with every weight replaced by its
    absolute value and BatchNorm the identity. In float64, since the flow grows exponentially with depth.

    Returns:
        The logarithm, which keeps the order; minus infinity where nothing flows.
    """
    network = copy.deepcopy(candidate.network).double()
    weights = [layer.weight for layer in weighted_layers(network)]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_()
    device = weights[0].device
    ones = torch.ones(1, *candidate.image_shape, dtype=torch.float64, device=device)
    with evaluation_mode(network):
        gradients = torch.autograd.grad(network(ones).sum(), weights, allow_unused=True)
    flow = sum(
        float((weight.detach() * gradient).abs().sum())
        for weight, gradient in zip(weights, gradients, strict=True)
        if gradient is not None
    )
    return math.log(flow) if flow > 0 else -math.inf
