"""Crops by area and changes of colour in the batches that students see."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from dfnas_ray.storage.shards import SyntheticImages
from dfnas_ray.teachers.base import freeze_teacher
from dfnas_ray.training.batches import SyntheticBatches
from dfnas_ray.training.config import AugmentationConfig, DistillationConfig
from dfnas_ray.training.device_images import DeviceImages

COUNT = 8


def batch_of(epoch=0, **changes):
    """The first batch of an epoch, of images that are all the same."""
    image = np.random.default_rng(0).integers(0, 256, (1, 3, 12, 12), dtype=np.uint8)
    data = SyntheticImages(
        images=np.repeat(image, COUNT, 0),
        labels=np.zeros(COUNT, np.int64),
        rounds=np.zeros(COUNT, np.int64),
        logits=np.zeros((COUNT, 5), np.float32),
        ids=np.arange(COUNT, dtype=np.uint64),
    )
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 5))
    teacher = freeze_teacher("t", model, (3, 8, 8), (0.5,) * 3, (0.5,) * 3)
    varied = {"crop_area": (0.2, 1), "flip_probability": 0, **changes.pop("varied", {})}
    config = DistillationConfig(augmentation=AugmentationConfig(**varied))
    settings = {"batch_size": 4, "seed": 0, **changes}
    return next(
        iter(SyntheticBatches(DeviceImages(data, torch.device("cpu")), teacher, config, **settings).epoch(epoch))
    )


def are_different(images):
    return len({image.numpy().tobytes() for image in images}) == len(images)


@pytest.mark.parametrize("varied", [{}, {"crop_area": None, "random_crop": False, "color_jitter": 0.4}])
def test_every_image_is_varied_in_its_own_way_on_every_worker(varied):
    ours, theirs = (batch_of(rank=rank, world_size=2, varied=varied).images for rank in (0, 1))
    assert are_different(torch.cat([ours, theirs]))
    assert torch.equal(ours, batch_of(rank=0, world_size=2, varied=varied).images), "and again in the same way"
    assert are_different(torch.cat([ours, batch_of(1, rank=0, world_size=2, varied=varied).images]))
    assert ours.shape == (4, 3, 8, 8)


def test_the_teacher_labels_what_is_left():
    assert are_different(batch_of().teacher_logits)


@pytest.mark.parametrize("area", [(0, 1), (0.5, 0.2), (0.5, 1.2)])
def test_shares_that_cannot_be_are_refused(area):
    with pytest.raises(ValidationError, match=r"crop_area .* must be two shares above 0 and up to 1"):
        AugmentationConfig(crop_area=area)
