"""Batches of synthetic images on the device.

The whole set is kept as one uint8 tensor on the device and indexed there; what a batch holds depends on the seed, the
epoch and its number only, so training that resumes at an epoch goes on as if it had never stopped.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dfnas_ray.errors import ConfigError
from dfnas_ray.seeding import derive_seed, torch_generator
from dfnas_ray.storage.shards import SyntheticImages
from dfnas_ray.synthesis.regions import center_crop, crop, draw_region
from dfnas_ray.teachers.base import Teacher
from dfnas_ray.training.config import AugmentationConfig, DistillationConfig


class Batch(NamedTuple):
    """Normalised images (B, C, H, W) and the teacher's logits on them (B, num_classes)."""

    images: Tensor
    teacher_logits: Tensor


def split_mask(
    ids: np.ndarray[Any, np.dtype[np.uint64]], fraction: float, seed: int, name: str = "validation-split"
) -> np.ndarray[Any, Any]:
    """Say which images are on the smaller side of a split, as a mask (N,).

    An image's side depends on its own id, the seed and the split's name alone: it never changes sides when more shards
    arrive.
    """
    # One round of the splitmix64 finaliser: enough to make neighbouring ids independent.
    with np.errstate(over="ignore"):
        z = ids + np.uint64(derive_seed(seed, name))
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    uniform = (z >> np.uint64(11)).astype(np.float64) / 2**53
    mask: np.ndarray[Any, Any] = uniform < fraction
    return mask


class SyntheticBatches:
    """Serves batches of one side of the synthetic set.

    Args:
        data: The images.
        teacher: Labels varied images, and knows the input statistics.
        config: Which labels, which variation.
        batch_size: Images per batch on this worker.
        seed: Of the order and the variation.
        device: Where the set is kept.
        rank: This worker's number among ``world_size``; together they see every image once an epoch.
        world_size: Number of workers.
    """

    def __init__(
        self,
        data: SyntheticImages,
        teacher: Teacher,
        config: DistillationConfig,
        batch_size: int,
        seed: int,
        device: torch.device,
        rank: int = 0,
        world_size: int = 1,
    ):
        self.teacher, self.config, self.seed, self.device = teacher, config, seed, device
        self.batch_size, self.rank, self.world_size = batch_size, rank, world_size
        self.input_size = teacher.image_shape[1:]
        self.ids = data.ids
        self.images = torch.from_numpy(data.images).to(device)
        self.logits = torch.from_numpy(data.logits).to(device)
        self.model = copy.deepcopy(teacher.model).to(device).to(memory_format=torch.channels_last)

    def __len__(self) -> int:
        """Batches per epoch. A last, smaller batch is left out, unless it is the only one."""
        return max(1, len(self.images) // (self.batch_size * self.world_size))

    def to(self, device: torch.device) -> None:
        """Move the set and the teacher to a device."""
        self.device = device
        self.images, self.logits = self.images.to(device), self.logits.to(device)
        self.model.to(device)

    def split(self, fraction: float, name: str) -> tuple[SyntheticBatches, SyntheticBatches]:
        """Return two parts of the set, the second one with ``fraction`` of the images.

        Raises:
            ConfigError: a part would be empty.
        """
        mask = torch.from_numpy(split_mask(self.ids, fraction, self.seed, name))
        if not 0 < int(mask.sum()) < len(mask):
            raise ConfigError(
                f"search: {len(mask)} synthetic training images are too few to be split for {name}. Make more with "
                "synthesis.num_shards or synthesis.images_per_shard."
            )
        parts = []
        for side in (~mask, mask):
            part = copy.copy(self)
            part.ids = self.ids[side.numpy()]
            part.images, part.logits = self.images[side.to(self.device)], self.logits[side.to(self.device)]
            parts.append(part)
        return parts[0], parts[1]

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield the training batches of epoch ``number``, shuffled and varied."""
        generator = torch_generator(self.seed, "epoch", number)
        order = torch.randperm(len(self.images), generator=generator)
        variation = self.config.variation
        total = self.batch_size * self.world_size
        for start in range(0, len(self) * total, total):
            mine = order[start : start + total][self.rank :: self.world_size].to(self.device)
            if variation is None:
                view = center_crop(self.images[mine], self.input_size)
                yield Batch(_channels_last(self.teacher.normalize(view)), self.logits[mine])
            else:
                images = _channels_last(self._vary(self.images[mine], variation, generator))
                yield Batch(images, self._ask_teacher(images))

    def unvaried(self, batch_size: int | None = None) -> Iterator[Batch]:
        """Yield every image's centre in order, with its stored logits: for validation."""
        size = batch_size or self.batch_size
        for start in range(0, len(self.images), size):
            view = center_crop(self.images[start : start + size], self.input_size)
            yield Batch(_channels_last(self.teacher.normalize(view)), self.logits[start : start + size])

    def _vary(self, canvases: Tensor, variation: AugmentationConfig, generator: torch.Generator) -> Tensor:
        if variation.random_crop:
            canvas_size = (canvases.shape[-2], canvases.shape[-1])
            region = draw_region(canvas_size, self.input_size, variation.flip_probability, generator)
            view = crop(canvases, region, self.input_size)
        else:
            view = center_crop(canvases, self.input_size)
            if torch.rand((), generator=generator) < variation.flip_probability:
                view = view.flip(-1)
        images = self.teacher.normalize(view)
        if torch.rand((), generator=generator) < variation.mixup:
            share = torch.rand((len(images), 1, 1, 1), generator=generator).to(self.device)
            images = share * images + (1 - share) * images.roll(1, dims=0)
        return images

    @torch.no_grad()
    def _ask_teacher(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images)
        return logits


def _channels_last(images: Tensor) -> Tensor:
    """Return the same images in the memory layout in which convolutions are fastest."""
    return images.contiguous(memory_format=torch.channels_last)
