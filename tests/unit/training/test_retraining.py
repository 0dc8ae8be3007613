"""Retraining without Ray: what its settings change."""

import pytest
import torch

from dfnas_ray.config.cluster import RetrainingResources
from dfnas_ray.config.experiment import make_experiment
from dfnas_ray.errors import ConfigError
from dfnas_ray.storage.location import Location
from dfnas_ray.testing.small import SMALL_CHAIN, small_images, small_teacher
from dfnas_ray.training.checkpoints import FileCheckpoints
from dfnas_ray.training.config import RetrainingConfig
from dfnas_ray.training.device_images import DeviceImages
from dfnas_ray.training.retraining import RetrainingJob, train_at_once, train_network, training_batches

CPU = torch.device("cpu")


class NoBoard:
    def writer(self, worker):
        return lambda done, note="": None

    def start(self, worker, where):
        pass


def trained(tmp_path, **settings):
    teacher = small_teacher()
    config = RetrainingConfig(epochs=2, batch_size=8, precision="float32", **settings)
    space = SMALL_CHAIN.space(teacher.image_shape, teacher.num_classes)
    job = RetrainingJob(config, RetrainingResources(), 0, space, space.cheapest(), 0.25, Location.parse(tmp_path))
    return train_at_once(job, training_batches(job, teacher, DeviceImages(small_images(), CPU)))


def test_a_compiled_network_becomes_what_it_would_without(graphs, tmp_path):
    plain, compiled = trained(tmp_path), trained(tmp_path, compile=True)
    assert len(graphs) == 2, "the network and the teacher, once each"
    for old, new in zip(plain.state_dict().values(), compiled.state_dict().values(), strict=True):
        assert torch.equal(old, new)


def test_workers_that_train_together_are_not_compiled():
    with pytest.raises(ConfigError, match=r"retraining: .*compile needs a single worker, not num_workers 2"):
        make_experiment({"teacher": "digits", "retraining": {"compile": True, "num_workers": 2}})


@pytest.mark.parametrize(("fraction", "side"), [(0.001, "none of 64 images"), (0.999, "all of 64 images")])
def test_images_that_are_all_on_one_side_are_refused_before_the_first_epoch(fraction, side, tmp_path):
    teacher = small_teacher()
    space = SMALL_CHAIN.space(teacher.image_shape, teacher.num_classes)
    config, folder = RetrainingConfig(epochs=1, batch_size=8), Location.parse(tmp_path)
    job = RetrainingJob(config, RetrainingResources(), 0, space, space.cheapest(), fraction, folder)
    checkpoints = FileCheckpoints(folder / "state.pt")
    with pytest.raises(ConfigError, match=rf"search\.validation_fraction \({fraction}\) holds out {side}"):
        train_network(job, teacher, small_images(), CPU, checkpoints, NoBoard())
    assert not checkpoints.file.exists()


def test_paths_that_are_dropped_ever_more_often_cannot_be_compiled():
    with pytest.raises(ConfigError, match=r"retraining: .*compile cannot be used with drop_path \(0\.2\)"):
        make_experiment({"teacher": "digits", "retraining": {"compile": True, "drop_path": 0.2}})
