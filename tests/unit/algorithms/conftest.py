"""A tiny problem to search on: images of noise, labelled by a teacher that was never trained."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dfnas_ray.algorithms.base import SearchProblem
from dfnas_ray.search_spaces import NASBenchMacroConfig
from dfnas_ray.storage.shards import SyntheticImages
from dfnas_ray.teachers.base import freeze_teacher
from dfnas_ray.teachers.digits import DigitsCNN
from dfnas_ray.training.batches import SyntheticBatches
from dfnas_ray.training.config import DistillationConfig
from dfnas_ray.training.device_images import DeviceImages


@pytest.fixture(scope="session")
def chain():
    """81 architectures of four layers."""
    config = NASBenchMacroConfig(stem_channels=4, stage_layers=(2, 2), stage_channels=(8, 16), head_channels=16)
    return config.space((1, 16, 16), 10)


@pytest.fixture(scope="session")
def make_problem():
    """Return a function that makes a search problem in a space; ``logits_of`` maps uint8 images to stored labels."""

    def make(space, max_macs=None, seed=0, count=64, logits_of=None, **settings):
        torch.manual_seed(0)
        shape, classes = space.image_shape, space.num_classes
        model = (
            DigitsCNN(4)
            if shape == (1, 16, 16)
            else torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(classes))
        )
        with torch.no_grad():
            model(torch.zeros(2, *shape))
        teacher = freeze_teacher("t", model, shape, (0.3,) * shape[0], (0.3,) * shape[0])
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (count, shape[0], shape[1] + 2, shape[2] + 2), dtype=np.uint8)
        logits = rng.normal(size=(count, classes)) if logits_of is None else logits_of(images)
        data = SyntheticImages(
            images=images,
            labels=np.zeros(count, np.int64),
            rounds=np.zeros(count, np.int64),
            logits=logits.astype(np.float32),
            ids=np.arange(count, dtype=np.uint64),
        )
        distillation = DistillationConfig(labels="online" if logits_of is None else "stored")
        train, validation = (
            SyntheticBatches(DeviceImages(data, torch.device("cpu")), teacher, distillation, 16, seed) for _ in range(2)
        )
        return SearchProblem(space, train, validation, distillation, max_macs, seed, **settings)

    return make
