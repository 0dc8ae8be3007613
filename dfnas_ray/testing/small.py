"""A teacher, images and spaces for the suites, so small that a search takes a moment."""

from __future__ import annotations

import numpy as np
import torch

from dfnas_ray.search_spaces import NASBench201Config, NASBenchMacroConfig, SpaceConfig
from dfnas_ray.storage.shards import SyntheticImages
from dfnas_ray.teachers.base import Teacher, freeze_teacher
from dfnas_ray.teachers.digits import DigitsCNN
from dfnas_ray.training.batches import SyntheticBatches
from dfnas_ray.training.config import DistillationConfig
from dfnas_ray.training.device_images import DeviceImages

IMAGE_SHAPE = (1, 16, 16)
NUM_CLASSES = 10

SMALL_CHAIN = NASBenchMacroConfig(stem_channels=4, stage_layers=(1, 1), stage_channels=(8, 16), head_channels=16)
SMALL_CELL = NASBench201Config(channels=4, cells_per_stage=1)
SMALL_SPACES: tuple[SpaceConfig, ...] = (SMALL_CHAIN, SMALL_CELL)


def small_teacher() -> Teacher:
    """Return an untrained digits network with varied BatchNorm statistics."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = DigitsCNN(4)
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        elif name.endswith("running_mean"):
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3)
    return freeze_teacher("small", model, IMAGE_SHAPE, (0.3,), (0.3,))


def small_images(count: int = 64) -> SyntheticImages:
    """Return images of random pixels on canvases of 18 x 18."""
    rng = np.random.default_rng(0)
    return SyntheticImages(
        images=rng.integers(0, 256, (count, 1, 18, 18), dtype=np.uint8),
        labels=np.arange(count) % NUM_CLASSES,
        rounds=np.zeros(count, np.int64),
        logits=rng.normal(size=(count, NUM_CLASSES)).astype(np.float32),
        ids=np.arange(count, dtype=np.uint64),
    )


def small_batches(batch_size: int = 16, count: int = 64) -> SyntheticBatches:
    """Return the images of `small_images` as batches labelled by `small_teacher`."""
    images = DeviceImages(small_images(count), torch.device("cpu"))
    return SyntheticBatches(images, small_teacher(), DistillationConfig(), batch_size, 0)
