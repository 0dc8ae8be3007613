"""ZiCo: weights whose gradients are large and similar on different batches train fast and generalise.

Source: Li et al. 2023, arXiv:2301.11300. Written from the formula.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from dfnas_ray.algorithms.zero_cost.untrained import UntrainedNetwork, weighted_layers


def zico(candidate: UntrainedNetwork) -> float:
    r"""Return :math:`\sum_l \log \sum_{\omega \in \theta_l} E[|\nabla_\omega|] / \sqrt{Var(|\nabla_\omega|)}`.

    Expectation and variance are taken over at least two batches. The loss is the cross entropy with the teacher's
    distribution, where the paper uses labels. Weights without variance and layers without gradient are left out.
    """
    weights = [layer.weight for layer in weighted_layers(candidate.network)]
    # In float64, because mean square and squared mean are almost equal where gradients are similar.
    total = [torch.zeros_like(weight, dtype=torch.float64) for weight in weights]
    squares = [torch.zeros_like(weight, dtype=torch.float64) for weight in weights]
    for images, teacher_logits in candidate.batches:
        loss = F.cross_entropy(candidate.network(images.clone()), teacher_logits.softmax(1))
        gradients = torch.autograd.grad(loss, weights, allow_unused=True)
        for mean, square, gradient in zip(total, squares, gradients, strict=True):
            if gradient is not None:
                mean += gradient.abs()
                square += gradient.double().square()
    count, score = len(candidate.batches), 0.0
    for mean, square in zip(total, squares, strict=True):
        mean /= count
        deviation = (square / count - mean.square()).clamp_min(0).sqrt()
        varies = deviation > 0
        if bool(varies.any()):
            score += math.log(float((mean[varies] / deviation[varies]).sum()))
    return score
