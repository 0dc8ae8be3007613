"""SynFlow: the synaptic flow through a network's weights. It needs no image.

Source: Tanaka et al. 2020, arXiv:2006.05467; as a score of architectures Abdelfattah et al. 2021,
arXiv:2101.08134, Sec. 3. Written from the formula.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from dfnas_ray.algorithms.zero_cost.untrained import UntrainedNetwork, evaluation_mode, weighted_layers

_SCALE = 1e-120  # scales input and output, so that values in deep networks stay within float64


def synflow(candidate: UntrainedNetwork) -> float:
    r"""Return :math:`\log \sum_\theta |\theta \, \partial R / \partial \theta|` over all weights.

    :math:`R = 1^T f_{|\theta|}(1)` is the sum of the outputs for an input of ones. Every weight is replaced by its
    absolute value, BatchNorm by the identity, and ReLU6, which would cut everything above 6, by ReLU. The flow grows
    exponentially with depth, so it is computed in float64, with scaled input and output.

    Returns:
        The logarithm, which keeps the order; minus infinity if nothing flows, infinity if float64 overflows.
    """
    network = _linear_on_positives(candidate.network)
    weights = [layer.weight for layer in weighted_layers(network)]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_()
    device = weights[0].device
    ones = torch.full((1, *candidate.image_shape), _SCALE, dtype=torch.float64, device=device)
    with evaluation_mode(network):
        gradients = torch.autograd.grad(network(ones).sum() * _SCALE, weights, allow_unused=True)
    flow = sum(
        float((weight.detach() * gradient).abs().sum())
        for weight, gradient in zip(weights, gradients, strict=True)
        if gradient is not None
    )
    if not math.isfinite(flow):
        return math.inf
    return math.log(flow) - 2 * math.log(_SCALE) if flow > 0 else -math.inf


def _linear_on_positives(network: nn.Module) -> nn.Module:
    """Return a copy in float64 that is linear where all weights and inputs are positive."""
    copied = copy.deepcopy(network).double()
    for module in copied.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()  # earlier proxies may have run images through it
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU6):
                setattr(module, name, nn.ReLU())
    return copied
