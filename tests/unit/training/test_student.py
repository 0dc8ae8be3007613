"""A step of distillation, with and without something else to learn."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dfnas_ray.training.batches import Batch
from dfnas_ray.training.config import OptimizerConfig
from dfnas_ray.training.distillation import distillation_loss
from dfnas_ray.training.student import Student


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
