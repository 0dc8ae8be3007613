"""Ray Train's controller writes to the storage as well, once: a refused write is no end of a training."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import ray.train.torch
from ray.train.v2.api.exceptions import ControllerError

from dfnas_ray.config.cluster import RetrainingResources
from dfnas_ray.errors import DfnasError
from dfnas_ray.execution.ray import training
from dfnas_ray.storage.location import Location

REFUSED = OSError("AWS Error SLOW_DOWN during CreateMultipartUpload operation: Please reduce your request rate.")


@pytest.fixture
def train(monkeypatch, tmp_path):
    """Return a function that trains with a trainer that ends as it is told, and returns its checkpoint."""
    monkeypatch.setattr(training, "retrained", lambda job, checkpoint: checkpoint)
    monkeypatch.setattr(training, "_read", lambda checkpoint, device: checkpoint)
    job = SimpleNamespace(
        config=SimpleNamespace(num_workers=1),
        resources=RetrainingResources(attempts=2),
        space=SimpleNamespace(encode=str),
        genotype="01",
        folder=Location.parse(tmp_path),
    )

    def run(*ends: Exception | None):
        left = list(ends)

        def fit(trainer):
            if (error := left.pop(0)) is not None:
                raise ControllerError(error)
            return SimpleNamespace(checkpoint="the last one")

        monkeypatch.setattr(ray.train.torch.TorchTrainer, "fit", fit)
        return training.train(job, None, None, None)

    return run


def test_a_training_whose_controller_could_not_write_is_gone_on_with(train):
    assert train(REFUSED, None) == "the last one"


@pytest.mark.parametrize("ends", [(REFUSED, REFUSED), (ValueError("a callback failed"), None)], ids=["again", "else"])
def test_a_training_that_fails_again_or_otherwise_says_how_to_go_on(train, ends):
    with pytest.raises(DfnasError, match="run the same command again to go on from the last epoch"):
        train(*ends)
