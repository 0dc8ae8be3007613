"""A step of distillation, with and without something else to learn."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torchvision.ops import StochasticDepth

from dfnas_ray.errors import ConfigError
from dfnas_ray.training.batches import Batch
from dfnas_ray.training.config import OptimizerConfig
from dfnas_ray.training.distillation import distillation_loss
from dfnas_ray.training.student import Student, train_epoch


def test_an_extra_loss_is_learned_from_and_not_reported():
    generator = torch.Generator().manual_seed(0)
    batch = Batch(torch.randn(4, 3, generator=generator), torch.randn(4, 2, generator=generator))
    weights = []
    for factor in (None, 0.0, 1.0):
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        before = distillation_loss(model(batch.images), batch.teacher_logits, 3.0).item()
        student = Student(model, OptimizerConfig(), 3.0, total_steps=1)
        extra = None if factor is None else lambda model=model, factor=factor: factor * model.weight.square().sum()
        assert student.step(batch, extra_loss=extra) == pytest.approx(before)
        weights.append(model.weight.detach())
    assert torch.equal(weights[0], weights[1])
    assert weights[2].norm() < weights[1].norm()


class FixedBatches:
    """Four batches of noise, the same in every epoch."""

    def epoch(self, number):
        generator = torch.Generator().manual_seed(number)
        return [Batch(torch.randn(8, 3, generator=generator), torch.randn(8, 2, generator=generator)) for _ in range(4)]


def student_that_drops_paths():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 16), StochasticDepth(0.5, "row"), nn.Linear(16, 2))
    return Student(model, OptimizerConfig(), 3.0, total_steps=8)


def test_an_epoch_after_a_break_drops_the_paths_that_it_would_have_dropped():
    whole = student_that_drops_paths()
    train_epoch(whole, FixedBatches(), 0, seed=10)
    state = copy.deepcopy(whole.state_dict())
    loss = train_epoch(whole, FixedBatches(), 1, seed=11)
    resumed = student_that_drops_paths()
    resumed.load_state_dict(state)
    assert train_epoch(resumed, FixedBatches(), 1, seed=11) == loss
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters, resumed.parameters, strict=True))
    other = student_that_drops_paths()
    other.load_state_dict(state)
    assert train_epoch(other, FixedBatches(), 1, seed=12) != loss


def test_a_batch_of_one_value_per_channel_says_what_to_raise():
    student = Student(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)), OptimizerConfig(), 3.0, 1)
    with pytest.raises(ConfigError, match=r"A batch of 1 image leaves BatchNorm one value .* Raise the batch_size"):
        student.step(Batch(torch.zeros(1, 3), torch.zeros(1, 2)))
