"""The second-order gradient of DARTS.

Source: Liu et al. 2019, arXiv:1806.09055, Eq. 6 to 8.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Loss = Callable[[], Tensor]

_PERTURBATION = 0.01  # epsilon of the finite difference is this over the norm of the direction (the paper's footnote 2)


def unrolled_alpha_gradient(
    train_loss: Loss,
    valid_loss: Loss,
    weights: Sequence[nn.Parameter],
    alphas: Sequence[nn.Parameter],
    lr: float,
    *,
    weight_decay: float = 0.0,
    velocity: Sequence[Tensor] | None = None,
    average: Callable[[list[Tensor]], list[Tensor]] = lambda gradients: gradients,
) -> list[Tensor]:
    r"""Return the gradient of :math:`L_{valid}(w', \alpha)` with respect to alpha, where w' is w after one step of SGD.

    .. math::
        w' = w - \xi (v + \nabla_w L_{train}(w, \alpha) + \lambda w)

        \nabla_\alpha L_{valid}(w', \alpha)
            - \xi \frac{\nabla_\alpha L_{train}(w^+, \alpha) - \nabla_\alpha L_{train}(w^-, \alpha)}{2 \epsilon},
        \quad w^\pm = w \pm \epsilon \nabla_{w'} L_{valid}(w', \alpha)

    Args:
        train_loss: Computes the training loss with the current weights and alphas.
        valid_loss: Computes the validation loss in the same way.
        weights: w; changed during the computation and restored exactly.
        alphas: The architecture parameters.
        lr: The step size xi.
        weight_decay: lambda.
        average: Returns the average of gradients over the processes that search together. The step to w' is then the
            step of the whole batch in each process.
        velocity: v, momentum times the optimiser's buffer, one per weight; zero by default.

    Returns:
        One gradient per tensor of ``alphas``.
    """
    saved = [weight.detach().clone() for weight in weights]
    step = average(_gradients(train_loss(), weights))
    with torch.no_grad():
        for index, (weight, gradient) in enumerate(zip(weights, step, strict=True)):
            direction = gradient + weight_decay * weight
            if velocity is not None:
                direction = direction + velocity[index]
            weight.sub_(lr * direction)
    both = average(_gradients(valid_loss(), [*alphas, *weights]))
    direct, towards = both[: len(alphas)], both[len(alphas) :]
    norm = torch.sqrt(sum((d.double().square().sum() for d in towards), start=torch.zeros((), dtype=torch.float64)))
    epsilon = _PERTURBATION / max(float(norm), 1e-12)
    sides = []
    for sign in (1.0, -1.0):
        with torch.no_grad():
            for weight, value, direction in zip(weights, saved, towards, strict=True):
                weight.copy_(value + sign * epsilon * direction)
        sides.append(_gradients(train_loss(), alphas))
    with torch.no_grad():
        for weight, value in zip(weights, saved, strict=True):
            weight.copy_(value)
    return [
        gradient - lr * (plus - minus) / (2 * epsilon) for gradient, plus, minus in zip(direct, *sides, strict=True)
    ]


def dominant_eigenvalue(
    loss: Loss,
    alphas: Sequence[nn.Parameter],
    start: Tensor,
    iterations: int,
    average: Callable[[list[Tensor]], list[Tensor]] = lambda products: products,
) -> tuple[float, Tensor]:
    """Return the eigenvalue of largest magnitude of a loss's Hessian in alpha, and its eigenvector, by power iteration.

    When it grows, the discretised architecture will generalise badly: Zela et al. 2020, arXiv:1909.09656.

    Args:
        loss: Computes the loss with the current alphas.
        alphas: The architecture parameters.
        start: (number of alphas,), where the iteration starts; the eigenvector of an earlier call saves iterations.
        iterations: Number of products of the Hessian with a vector.
        average: Returns the average of each product over the processes that search together.
    """
    gradients = torch.autograd.grad(loss(), alphas, create_graph=True)
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    vector, eigenvalue = start.to(flat), 0.0
    for _ in range(iterations):
        vector = vector / vector.norm().clamp_min(1e-20)
        products = torch.autograd.grad(flat, alphas, grad_outputs=vector, retain_graph=True)
        product = torch.cat([product.flatten() for product in average(list(products))])
        eigenvalue = float(vector @ product)
        vector = product
    return eigenvalue, vector.detach()


def _gradients(loss: Tensor, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]
