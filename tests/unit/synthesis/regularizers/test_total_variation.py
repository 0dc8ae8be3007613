"""R_tv."""

import pytest
import torch

from dfnas_ray.synthesis.regularizers import Observation
from dfnas_ray.synthesis.regularizers.total_variation import TotalVariationConfig, total_variation_loss


def image(rows):
    return torch.tensor(rows, dtype=torch.float32)[None, None]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        # horizontal (1, 0), vertical (1, 0), \ 1-0, / 0
        ([[1, 0], [0, 0]], 1 + 1 + 1 + 0),
        # the two diagonals differ: \ 0, / 1
        ([[0, 1], [0, 0]], 1 + 1 + 0 + 1),
        # horizontal (3, 3), vertical (4, 4), \ 7, / 1
        ([[0, 3], [4, 7]], 18**0.5 + 32**0.5 + 7 + 1),
        # one row: horizontal (2, -3) alone
        ([[0, 2, -1]], 13**0.5),
        # one column: vertical alone
        ([[5], [1]], 4),
    ],
    ids=str,
)
def test_loss_equals_the_hand_computed_sum_of_four_directions(rows, expected):
    assert total_variation_loss(image(rows)).item() == pytest.approx(expected)


def test_norms_run_over_the_whole_batch_and_all_channels():
    one = image([[1, 0], [0, 0]])
    # four equal copies double each norm
    assert total_variation_loss(one.expand(2, 2, 2, 2)).item() == pytest.approx(6.0)


def test_images_of_one_colour_cost_nothing_and_have_a_finite_gradient():
    x = torch.full((2, 3, 4, 4), 0.7, requires_grad=True)
    loss = total_variation_loss(x)
    (gradient,) = torch.autograd.grad(loss, x)
    assert loss.item() == 0.0
    assert gradient.abs().max().item() == 0.0


def test_mirrored_and_transposed_images_cost_the_same():
    x = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    expected = total_variation_loss(x).item()
    for moved in (x.flip(-1), x.flip(-2), x.transpose(-1, -2)):
        assert total_variation_loss(moved).item() == pytest.approx(expected)


def test_gradient_equals_the_analytical_one():
    # [[a, b], [c, d]] = [[0, 3], [4, 7]]: each norm's gradient is difference / norm
    x = image([[0, 3], [4, 7]]).requires_grad_()
    (gradient,) = torch.autograd.grad(total_variation_loss(x), x)
    h, v = 3 / 18**0.5, 4 / 32**0.5
    expected = image([[-h - v - 1, h - v - 1], [-h + v + 1, h + v + 1]])  # "/": b - c is -1, so b gets -1 and c gets 1
    torch.testing.assert_close(gradient, expected)


def test_bfloat16_images_give_a_float32_loss():
    assert total_variation_loss(image([[0, 3], [4, 7]]).to(torch.bfloat16)).dtype == torch.float32


def test_config_returns_the_unweighted_term():
    observation = Observation(image([[1, 0], [0, 0]]), [])
    assert TotalVariationConfig(weight=0.5).loss()(observation).item() == pytest.approx(3.0)
