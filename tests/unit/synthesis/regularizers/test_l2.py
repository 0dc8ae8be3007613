"""R_l2."""

import pytest
import torch

from dfnas_ray.synthesis.regularizers import Observation
from dfnas_ray.synthesis.regularizers.l2 import L2Config, l2_loss


@pytest.fixture
def images():
    """Two images of norms 5 and 13, over channels and pixels."""
    return torch.tensor([[3.0, 0.0, 4.0, 0.0], [0.0, 5.0, 0.0, 12.0]]).view(2, 2, 1, 2)


def test_loss_is_the_mean_of_the_images_norms(images):
    assert l2_loss(images).item() == pytest.approx(9.0)


def test_gradient_equals_the_analytical_one(images):
    x = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(l2_loss(x), x)
    torch.testing.assert_close(gradient, images / torch.tensor([5.0, 13.0]).view(2, 1, 1, 1) / 2)


def test_black_images_cost_nothing_and_have_a_finite_gradient():
    x = torch.zeros(2, 1, 2, 2, requires_grad=True)
    loss = l2_loss(x)
    (gradient,) = torch.autograd.grad(loss, x)
    assert loss.item() == 0.0
    assert gradient.abs().max().item() == 0.0


def test_bfloat16_images_give_a_float32_loss(images):
    assert l2_loss(images.to(torch.bfloat16)).dtype == torch.float32


def test_config_returns_the_unweighted_term(images):
    assert L2Config(weight=0.5).loss()(Observation(images, [])).item() == pytest.approx(9.0)
