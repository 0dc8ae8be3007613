"""The learning rate's schedule, by hand."""

from __future__ import annotations

import pytest

from dfnas_ray.training.config import OptimizerConfig
from dfnas_ray.training.student import make_schedule


def rates(total, restarts=(), **settings):
    config = OptimizerConfig(**{"lr": 1.0, "min_lr": 0.0, "warmup_fraction": 0, **settings})
    learning_rate = make_schedule(config, total, restarts)
    return [learning_rate(step) for step in range(total + 1)]


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
