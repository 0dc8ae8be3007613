"""R_bn."""

import pytest
import torch

from dfnas_ray.synthesis.regularizers import BatchNormInput, Observation, Statistics
from dfnas_ray.synthesis.regularizers.bn_statistics import BNStatisticsConfig, bn_statistics_loss


def layer(x, mean, var):
    return BatchNormInput(x, torch.tensor(mean), torch.tensor(var))


def test_loss_equals_the_hand_computed_value():
    x = torch.tensor([0.0, 2.0]).view(2, 1, 1, 1)  # mean 1, var 1
    assert bn_statistics_loss([layer(x, [4.0], [3.0])]).item() == pytest.approx(3.0 + 2.0)


def test_statistics_run_over_images_and_pixels_with_the_biased_variance():
    x = torch.tensor([0.0, 0.0, 4.0, 4.0, 0.0, 0.0, 4.0, 4.0]).view(2, 1, 2, 2)  # mean 2; biased var 4, unbiased 4.57
    assert bn_statistics_loss([layer(x, [2.0], [4.0])]).item() == 0.0


def test_norms_run_over_channels():
    x = torch.zeros(2, 2, 1, 1)  # means 0, vars 0
    # means differ by (3, 4): norm 5; vars by (5, 12): norm 13
    assert bn_statistics_loss([layer(x, [3.0, 4.0], [5.0, 12.0])]).item() == pytest.approx(18.0)


def test_the_first_layer_alone_is_multiplied():
    x = torch.zeros(2, 1, 1, 1)
    layers = [layer(x, [1.0], [0.0]), layer(x, [20.0], [0.0]), layer(x, [0.0], [300.0])]
    assert bn_statistics_loss(layers).item() == pytest.approx(321.0)
    assert bn_statistics_loss(layers, first_layer_multiplier=10.0).item() == pytest.approx(330.0)
    assert bn_statistics_loss(layers, first_layer_multiplier=0.0).item() == pytest.approx(320.0)


def test_inputs_after_pooling_have_no_pixels():
    x = torch.tensor([[0.0, 1.0], [2.0, 5.0]])  # (B, C): means 1, 3; vars 1, 4
    assert bn_statistics_loss([layer(x, [1.0, 0.0], [1.0, 0.0])]).item() == pytest.approx(3.0 + 4.0)


def test_bfloat16_inputs_give_a_float32_loss_computed_in_float32():
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(8, 1, 16, 16, generator=generator) + 10).to(torch.bfloat16)
    loss = bn_statistics_loss([layer(x, [10.5], [0.0])])
    assert loss.dtype == torch.float32
    wide = x.double()
    expected = (wide.mean() - 10.5).abs() + wide.var(correction=0)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-4)  # bfloat16 sums would be off by 1e-2


def test_loss_is_float32_under_autocast():
    x = torch.zeros(2, 1, 2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert bn_statistics_loss([layer(x, [1.0], [1.0])]).dtype == torch.float32


def test_gradient_equals_the_analytical_one():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, 2, 4, 4, generator=generator).requires_grad_()
    running_mean, running_var = torch.tensor([0.5, -1.0]), torch.tensor([2.0, 0.3])
    (gradient,) = torch.autograd.grad(bn_statistics_loss([BatchNormInput(x, running_mean, running_var)]), x)
    with torch.no_grad():
        n = 3 * 4 * 4
        mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
        towards_mean = (mean - running_mean) / (mean - running_mean).norm() / n  # d||d||/dd = d/||d||
        towards_var = (var - running_var) / (var - running_var).norm() * 2 / n
        expected = towards_mean.view(1, 2, 1, 1) + towards_var.view(1, 2, 1, 1) * (x - mean.view(1, 2, 1, 1))
    torch.testing.assert_close(gradient, expected)


def test_gradient_is_finite_where_the_statistics_match_exactly():
    x = torch.tensor([0.0, 2.0]).view(2, 1, 1, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(bn_statistics_loss([layer(x, [1.0], [1.0])]), x)
    assert gradient.flatten().tolist() == [0.0, 0.0]


def test_no_layer_is_an_error():
    with pytest.raises(ValueError, match="at least one BatchNorm"):
        bn_statistics_loss([])


def test_config_hands_its_multiplier_to_the_loss():
    x = torch.zeros(2, 1, 1, 1)
    observation = Observation(torch.ones(2, 1, 1, 1), [layer(x, [1.0], [0.0]), layer(x, [1.0], [0.0])])
    assert BNStatisticsConfig(first_layer_multiplier=4.0).loss()(observation).item() == pytest.approx(5.0)
    assert BNStatisticsConfig().loss()(observation).item() == pytest.approx(11.0)  # the published 10


def test_batches_before_are_averaged_with_this_one():
    x = torch.tensor([0.0, 2.0]).view(2, 1, 1, 1)  # mean 1, var 1
    past = Statistics(torch.tensor([5.0]), torch.tensor([9.0]), 0.75)
    one = BatchNormInput(x, torch.tensor([2.0]), torch.tensor([3.0]), past)
    # mean 0.75 * 5 + 0.25 * 1 = 4, two above the teacher's; variance 0.75 * 9 + 0.25 * 1 = 7, four above it
    assert bn_statistics_loss([one]).item() == pytest.approx(2 + 4)


def test_the_gradient_with_batches_before_is_that_of_the_formula():
    x = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    mean, var, wanted_mean, wanted_var = torch.rand(4, 3, generator=torch.Generator().manual_seed(1))
    ours = bn_statistics_loss([BatchNormInput(x, wanted_mean, wanted_var, Statistics(mean, var, 0.9))])
    mixed_mean = 0.9 * mean + 0.1 * x.mean((0, 2, 3))
    mixed_var = 0.9 * var + 0.1 * x.var((0, 2, 3), correction=0)
    plain = torch.linalg.vector_norm(mixed_mean - wanted_mean) + torch.linalg.vector_norm(mixed_var - wanted_var)
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)
    ours_grad, plain_grad = (torch.autograd.grad(value, x)[0] for value in (ours, plain))
    torch.testing.assert_close(ours_grad, plain_grad, rtol=1e-3, atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU; passed on an H200, see gpu.md")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format, None], ids=str)
def test_a_gpu_gives_the_same_value_and_the_same_gradient(layout, dtype):
    generator = torch.Generator().manual_seed(0)
    shape = (64, 24) if layout is None else (16, 24, 9, 7)
    x = (2 * torch.randn(shape, generator=generator) + 1).to(dtype)
    mean, var = torch.randn(24, generator=generator), torch.rand(24, generator=generator)
    results = []
    for device in ("cpu", "cuda"):
        there = x.to(device) if layout is None else x.to(device).contiguous(memory_format=layout)
        there.requires_grad_()
        loss = bn_statistics_loss([BatchNormInput(there, mean.to(device), var.to(device))])
        (gradient,) = torch.autograd.grad(3 * loss, there)
        assert gradient.dtype == dtype
        results.append((loss.cpu(), gradient.cpu()))
    torch.testing.assert_close(*(loss for loss, _ in results), rtol=1e-4, atol=1e-5)
    tolerance = {"rtol": 1e-2, "atol": 1e-5} if dtype == torch.bfloat16 else {"rtol": 1e-3, "atol": 1e-6}
    torch.testing.assert_close(*(gradient for _, gradient in results), **tolerance)
