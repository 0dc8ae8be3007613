"""ZiCo: weights whose gradients are large and alike on different batches train fast and generalise.

Source: Li et al. 2023, arXiv:2301.11300. Written from the formula.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from dfnas_ray.algorithms.zero_cost.untrained import UntrainedNetwork, weighted_layers


def zico(candidate: UntrainedNetwork) -> float:
    r"""Return :math:`\sum_l \log \sum_{\omega \in \theta_l} E[|\nabla_\omega|] / \sqrt{Var(|\nabla_\omega|)}`.

    Expectation and variance run over the batches, at least two. The loss is the cross entropy with the teacher's
    distribution, where the paper has labels. Weights without variance are left out, and so are layers without gradient.
    """
    weights = [layer.weight for layer in weighted_layers(candidate.network)]
    # In float64: where gradients are alike, little is left of the difference between mean square and squared mean.
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
