"""The learning rate's schedule, by hand."""

from __future__ import annotations

import pytest
import torch

from dfnas_ray.training.config import OptimizerConfig
from dfnas_ray.training.student import make_optimizer


def rates(total, restarts=(), **settings):
    parameter = torch.nn.Parameter(torch.zeros(1))
    config = OptimizerConfig(**{"lr": 1.0, "min_lr": 0.0, "warmup_fraction": 0, **settings})
    optimizer, schedule = make_optimizer([parameter], config, total, restarts)
    found = []
    for _ in range(total + 1):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_a_cosine_falls_from_highest_to_lowest():
    assert rates(4) == pytest.approx([1, 0.853553, 0.5, 0.146447, 0], abs=1e-6)
    assert rates(2, min_lr=0.2) == pytest.approx([1, 0.6, 0.2])


def test_each_restart_begins_a_cosine_of_its_own():
    # cycles of 2, 4 and 2 steps
    expected = [1, 0.5, 1, 0.853553, 0.5, 0.146447, 1, 0.5, 0]
    assert rates(8, (2, 6)) == pytest.approx(expected, abs=1e-6)


def test_the_warmup_is_a_share_of_the_first_fall():
    assert rates(8, (4,), warmup_fraction=0.5) == pytest.approx(
        [0.5, 1, 1, 0.5, 1, 0.853553, 0.5, 0.146447, 0], abs=1e-6
    )
