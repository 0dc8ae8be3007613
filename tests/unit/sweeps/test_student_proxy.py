"""The student proxy: the same work for every trial, and the examination's worst setting counts."""

import numpy as np
import pytest
import torch
from torch import nn

from dfnas_ray.sweeps.measure import Examination, logit_correlation, proxy_architecture, student_proxy
from dfnas_ray.teachers.base import Teacher


class FirstPixel(nn.Module):
    """Sees class 1 where the first pixel is bright."""

    def __init__(self, threshold):
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(threshold), requires_grad=False)

    def forward(self, x):
        bright = (x[:, 0, 0, 0] > self.threshold).float()
        return torch.stack([1 - bright, bright], 1)


def test_the_reference_setting_with_the_least_correlation_counts():
    teacher = Teacher("t", FirstPixel(0.5), 2, (1, 1, 1), (0.0,), (1.0,))
    # With two classes, the correlation of an image is 1 or -1. Setting 0: four images, all agreed. Setting 1: of four, one
    # lies between the thresholds.
    pixels = torch.tensor([0, 0, 255, 255, 150, 255, 255, 0], dtype=torch.uint8).view(-1, 1, 1, 1)
    examination = Examination(pixels, torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]))
    assert student_proxy(FirstPixel(0.9), teacher, examination) == pytest.approx(0.5)
    assert student_proxy(FirstPixel(0.5), teacher, examination) == pytest.approx(1.0)


def test_the_correlation_is_that_of_numpy_and_knows_no_scale():
    class Logits(nn.Module):
        def __init__(self, scale):
            super().__init__()
            weights = torch.randn(5, 12, generator=torch.Generator().manual_seed(scale))
            self.weights = nn.Parameter(scale * weights, requires_grad=False)

        def forward(self, x):
            return x.flatten(1) @ self.weights.T + 7

    teacher = Teacher("t", Logits(1), 5, (3, 2, 2), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    images = torch.randint(0, 256, (6, 3, 2, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    measured = logit_correlation(Logits(3), teacher.model, teacher, images)
    x = images / 255
    expected = [np.corrcoef(a, b)[0, 1] for a, b in zip(Logits(3)(x).numpy(), Logits(1)(x).numpy(), strict=True)]
    np.testing.assert_allclose(measured.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_the_student_is_the_largest_within_the_limit():
    from dfnas_ray.search_spaces import NASBenchMacroConfig

    space = NASBenchMacroConfig(stem_channels=4, stage_layers=(1, 1), stage_channels=(8, 16), head_channels=8).space(
        (1, 16, 16), 10
    )
    limit = space.cost(space.decode("11")).macs
    chosen = proxy_architecture(space, limit, seed=0)
    within = [space.cost(space.decode(a + b)).macs for a in "012" for b in "012"]
    assert space.cost(chosen).macs == max(macs for macs in within if macs <= limit)
