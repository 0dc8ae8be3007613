"""The student proxy: the same work for every trial, and the examination's worst setting counts."""

import pytest
import torch
from torch import nn

from dfnas_ray.sweeps.measure import Examination, proxy_architecture, student_proxy
from dfnas_ray.teachers.base import Teacher


class FirstPixel(nn.Module):
    """Sees class 1 where the first pixel is bright."""

    def __init__(self, threshold):
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(threshold), requires_grad=False)

    def forward(self, x):
        bright = (x[:, 0, 0, 0] > self.threshold).float()
        return torch.stack([1 - bright, bright], 1)


def test_the_reference_setting_with_the_least_agreement_counts():
    teacher = Teacher("t", FirstPixel(0.5), 2, (1, 1, 1), (0.0,), (1.0,))
    # Setting 0: four images, all agreed. Setting 1: of two images, one lies between the thresholds.
    pixels = torch.tensor([0, 0, 255, 255, 150, 255], dtype=torch.uint8).view(-1, 1, 1, 1)
    examination = Examination(pixels, torch.tensor([0, 0, 0, 0, 1, 1]))
    assert student_proxy(FirstPixel(0.9), teacher, examination) == pytest.approx(0.5)
    assert student_proxy(FirstPixel(0.5), teacher, examination) == 1.0


def test_the_student_is_the_largest_within_the_limit():
    from dfnas_ray.search_spaces import NASBenchMacroConfig

    space = NASBenchMacroConfig(stem_channels=4, stage_layers=(1, 1), stage_channels=(8, 16), head_channels=8).space(
        (1, 16, 16), 10
    )
    limit = space.cost(space.decode("11")).macs
    chosen = proxy_architecture(space, limit, seed=0)
    within = [space.cost(space.decode(a + b)).macs for a in "012" for b in "012"]
    assert space.cost(chosen).macs == max(macs for macs in within if macs <= limit)
