"""The second-order gradient against automatic differentiation through the unrolled step, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call

from dfnas_ray.algorithms.unrolled import dominant_eigenvalue, unrolled_alpha_gradient
from dfnas_ray.ops.mixed import MixedOperation, Mixture


class ToySupernet(nn.Module):
    """Two mixed operations of smooth options in a row."""

    def __init__(self, features=6):
        super().__init__()
        self.places = nn.ModuleList(
            MixedOperation(
                [nn.Linear(features, features), nn.Identity(), nn.Sequential(nn.Linear(features, features), nn.Tanh())]
            )
            for _ in range(2)
        )
        self.head = nn.Linear(features, 3)

    def forward(self, x, alphas):
        for place, row in zip(self.places, alphas.softmax(dim=1), strict=True):
            x = place(x, Mixture((0, 1, 2), row))
        return self.head(x)


@pytest.fixture
def toy():
    torch.manual_seed(0)
    net = ToySupernet().double()
    alphas = nn.Parameter(torch.randn(2, 3, dtype=torch.float64))
    batches = [(torch.randn(8, 6, dtype=torch.float64), torch.randint(0, 3, (8,))) for _ in range(2)]
    return net, alphas, *batches


def loss_of(net, alphas, batch, weights=None):
    x, y = batch
    logits = net(x, alphas) if weights is None else functional_call(net, weights, (x, alphas))
    return nn.functional.cross_entropy(logits, y)


@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.0, 0.0), (0.9, 3e-4)])
def test_the_gradient_agrees_with_differentiation_through_the_step(toy, momentum, weight_decay):
    net, alphas, train, valid = toy
    lr, weights = 0.1, list(net.parameters())
    velocity = [momentum * torch.randn_like(w) for w in weights]
    found = unrolled_alpha_gradient(
        lambda: loss_of(net, alphas, train),
        lambda: loss_of(net, alphas, valid),
        weights,
        [alphas],
        lr,
        weight_decay=weight_decay,
        velocity=velocity,
    )
    gradients = torch.autograd.grad(loss_of(net, alphas, train), weights, create_graph=True)
    names = [name for name, _ in net.named_parameters()]
    unrolled = {
        name: w - lr * (v + g + weight_decay * w)
        for name, w, g, v in zip(names, weights, gradients, velocity, strict=True)
    }
    (exact,) = torch.autograd.grad(loss_of(net, alphas, valid, unrolled), [alphas])
    assert (found[0] - exact).norm() / exact.norm() < 1e-3
    first_order = torch.autograd.grad(loss_of(net, alphas, valid), [alphas])[0]
    assert (first_order - exact).norm() / exact.norm() > 1e-2  # else the test could not tell the two apart


def test_the_weights_are_restored_exactly(toy):
    net, alphas, train, valid = toy
    before = [w.detach().clone() for w in net.parameters()]
    unrolled_alpha_gradient(
        lambda: loss_of(net, alphas, train), lambda: loss_of(net, alphas, valid), list(net.parameters()), [alphas], 0.1
    )
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_power_iteration_finds_the_eigenvalue_of_largest_magnitude():
    alphas = [nn.Parameter(torch.tensor([1.0, 2.0])), nn.Parameter(torch.tensor([3.0]))]

    def loss():  # Hessian diag(2, -10, 4)
        return alphas[0][0] ** 2 - 5 * alphas[0][1] ** 2 + 2 * alphas[1][0] ** 2

    eigenvalue, vector = dominant_eigenvalue(loss, alphas, torch.ones(3), 50)
    assert eigenvalue == pytest.approx(-10, rel=1e-4)
    assert abs(vector[1]) / vector.norm() == pytest.approx(1, abs=1e-4)
