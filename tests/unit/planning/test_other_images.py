"""Plans of experiments that look at other images than synthetic ones."""

import pytest

from dfnas_ray.config.experiment import make_experiment
from dfnas_ray.planning import estimate as module


@pytest.fixture
def timed(monkeypatch, tiny_teacher):
    """Let everything take a second for each image."""
    monkeypatch.setattr(module.timing, "time_synthesis", lambda *a: 1.0)
    monkeypatch.setattr(module.timing, "time_trial", lambda *a: 1.0)
    monkeypatch.setattr(module.timing, "time_training", lambda *a: 1.0)
    monkeypatch.setattr(module.timing, "time_forward", lambda *a: 0.0)
    return lambda values, *overrides: {
        stage.stage: stage.seconds for stage in module.estimate(make_experiment(values, overrides), tiny_teacher).stages
    }


def test_a_retraining_on_more_images_takes_longer_and_synthesis_is_left_out_where_nobody_looks(timed, tiny_values):
    inline = "cluster.address=inline"
    whole = timed(tiny_values(), inline)
    other = timed(tiny_values(), inline, "search.images=noise", "retraining.images={kind: noise, num_images: 1200}")
    assert "synthesis" in whole
    assert "synthesis" not in other
    assert other["retraining"] == pytest.approx(10 * whole["retraining"])
