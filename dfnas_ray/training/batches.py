"""Batches of synthetic images on the device.

The whole set is kept as one uint8 tensor on the device and indexed there. The content of a batch depends only on the
seed, the epoch, the number of the batch and the present images. So training that resumes at an epoch continues as if it
had never stopped.

A set may still be growing. An epoch then has as many steps as on the finished set, and repeats the present images as
often as needed. So the learning rate follows its schedule, and with the complete set nothing changes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, count, islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dfnas_ray.errors import ConfigError
from dfnas_ray.ops.area_crops import crop_areas, jitter_colors
from dfnas_ray.ops.networks import copy_network
from dfnas_ray.ops.precision import Precision, autocast, autocast_dtype
from dfnas_ray.ops.regions import center_crop, crop, draw_region
from dfnas_ray.seeding import derive_seed, torch_generator
from dfnas_ray.storage.shards import Ids, SyntheticImages
from dfnas_ray.teachers.base import Teacher
from dfnas_ray.training.config import AugmentationConfig, DistillationConfig


class Batch(NamedTuple):
    """Normalised images (B, C, H, W) and the teacher's logits on them (B, num_classes)."""

    images: Tensor
    teacher_logits: Tensor


class LabelledBatch(NamedTuple):
    """A batch with the images' own labels, int64 (B,)."""

    images: Tensor
    teacher_logits: Tensor
    labels: Tensor


def split_mask(ids: Ids, fraction: float, seed: int, name: str = "validation-split") -> np.ndarray[Any, Any]:
    """Return a mask (N,) of the images on the side of a split that has the share ``fraction``.

    An image's side depends only on its id, the seed and the name of the split, so it does not change when more shards
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
    """Batches of one side of the synthetic set.

    Args:
        data: The images.
        teacher: The teacher, which labels varied images and has the input statistics.
        config: Settings of labels and augmentation.
        batch_size: Images per batch on this worker.
        seed: The seed of the order and the augmentation.
        device: The device that holds the set.
        rank: This worker's number among ``world_size``; together they see every image once per epoch.
        world_size: Number of workers.
        planned_ids: The ids (N,) of the finished set, if ``data`` is a part of it that will grow.
        precision: The precision in which the teacher labels varied images.
        asks_teacher: Whether the teacher labels varied images. If not, batches have the stored logits, for training
            that does not use them.
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
        planned_ids: Ids | None = None,
        precision: Precision = "float32",
        asks_teacher: bool = True,
    ):
        self.teacher, self.config, self.seed, self.device = teacher, config, seed, device
        self.batch_size, self.rank, self.world_size = batch_size, rank, world_size
        self.precision: Precision = precision
        self.asks_teacher = asks_teacher
        self.input_size = teacher.image_shape[1:]
        self.ids = data.ids
        self.planned_ids = data.ids if planned_ids is None else planned_ids
        self.images = torch.from_numpy(data.images).to(device)
        self.logits = torch.tensor(data.logits, device=device)  # a copy, which may be changed
        self.labels = torch.tensor(data.labels, device=device)
        self.model = copy_network(teacher.model).to(device).to(memory_format=torch.channels_last)
        self._parts: list[_Part] = []

    def __len__(self) -> int:
        """Return the batches per epoch of the finished set, without a smaller last batch unless it is the only one."""
        return max(1, len(self.planned_ids) // (self.batch_size * self.world_size))

    def take(self, data: SyntheticImages) -> None:
        """Replace the images by a larger part of the planned set; the parts returned by `split` are updated, too."""
        self.ids = data.ids
        self.images = torch.from_numpy(data.images).to(self.device)
        self.logits = torch.tensor(data.logits, device=self.device)
        self.labels = torch.tensor(data.labels, device=self.device)
        for part in self._parts:
            part.fill(self)

    def to(self, device: torch.device) -> None:
        """Move the set and the teacher to a device."""
        self.device = device
        self.images, self.logits, self.labels = (t.to(device) for t in (self.images, self.logits, self.labels))
        self.model.to(device)

    def split(self, fraction: float, name: str) -> tuple[SyntheticBatches, SyntheticBatches]:
        """Return two parts of the set; the second one has the share ``fraction`` of the images.

        Raises:
            ConfigError: a part would be empty.
        """
        mask = split_mask(self.ids, fraction, self.seed, name)
        if not 0 < int(mask.sum()) < len(mask):
            raise ConfigError(
                f"search: {len(mask)} synthetic training images are too few to be split for {name}. Make more with "
                "synthesis.num_shards or synthesis.images_per_shard"
                + ("." if self.is_complete else ", or start with more: search.start_after_shards.")
            )
        planned = split_mask(self.planned_ids, fraction, self.seed, name)
        for larger in (True, False):
            part = copy.copy(self)
            part.planned_ids, part._parts = self.planned_ids[planned != larger], []
            self._parts.append(_Part(part, fraction, name, larger))
            self._parts[-1].fill(self)
        return self._parts[-2].batches, self._parts[-1].batches

    @property
    def is_complete(self) -> bool:
        """Whether all images of the planned set are present."""
        return len(self.ids) == len(self.planned_ids)

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield the training batches of epoch ``number``, shuffled and varied."""
        return (batch for _, batch in self._epoch(number))

    def labelled_epoch(self, number: int) -> Iterator[LabelledBatch]:
        """Yield the batches of `epoch` with the images' own labels."""
        return (LabelledBatch(*batch, self.labels[rows]) for rows, batch in self._epoch(number))

    def _epoch(self, number: int) -> Iterator[tuple[Tensor, Batch]]:
        if not len(self.images):
            raise ConfigError(
                "search: the first shards hold no image for training. Make larger ones with synthesis.images_per_shard, or "
                "start with more: search.start_after_shards."
            )
        generator = torch_generator(self.seed, "epoch", number)
        total = self.batch_size * self.world_size
        order = torch.randperm(len(self.images), generator=generator)
        while len(order) < min(len(self) * total, len(self.planned_ids)):  # the set is still growing
            order = torch.cat([order, torch.randperm(len(self.images), generator=generator)])
        variation, own = self.config.variation, torch_generator(self.seed, "each", number, self.rank)
        for start in range(0, len(self) * total, total):
            mine = order[start : start + total][self.rank :: self.world_size].to(self.device)
            if variation is None:
                view = center_crop(self.images[mine], self.input_size)
                yield mine, Batch(_channels_last(self.teacher.normalize(view)), self.logits[mine])
            else:
                images = _channels_last(self._vary(self.images[mine], variation, generator, own))
                yield mine, Batch(images, self._ask_teacher(images) if self.asks_teacher else self.logits[mine])

    def first(self, number: int, from_epoch: int = 0) -> list[Batch]:
        """Return the first ``number`` training batches from epoch ``from_epoch`` on, epoch after epoch."""
        return list(islice(chain.from_iterable(map(self.epoch, count(from_epoch))), number))

    def unvaried(self, batch_size: int | None = None) -> Iterator[Batch]:
        """Yield every image's centre in order, with its stored logits: for validation."""
        size = batch_size or self.batch_size
        for start in range(0, len(self.images), size):
            view = center_crop(self.images[start : start + size], self.input_size)
            yield Batch(_channels_last(self.teacher.normalize(view)), self.logits[start : start + size].clone())

    def _vary(
        self, canvases: Tensor, variation: AugmentationConfig, generator: torch.Generator, own: torch.Generator
    ) -> Tensor:
        """Augment a batch. ``generator`` makes the draws that are equal on all workers, ``own`` those of each image."""
        if variation.crop_area is not None:
            view = crop_areas(canvases, self.input_size, variation.crop_area, variation.flip_probability, own)
        elif variation.random_crop:
            canvas_size = (canvases.shape[-2], canvases.shape[-1])
            region = draw_region(canvas_size, self.input_size, variation.flip_probability, generator)
            view = crop(canvases, region, self.input_size)
        else:
            view = center_crop(canvases, self.input_size)
            if torch.rand((), generator=generator) < variation.flip_probability:
                view = view.flip(-1)
        if variation.color_jitter:
            view = jitter_colors(view, variation.color_jitter, own)
        images = self.teacher.normalize(view)
        if torch.rand((), generator=generator) < variation.mixup:
            share = torch.rand((len(images), 1, 1, 1), generator=generator).to(self.device)
            images = share * images + (1 - share) * images.roll(1, dims=0)
        return images

    @torch.no_grad()
    def _ask_teacher(self, images: Tensor) -> Tensor:
        with autocast(images.device, autocast_dtype(self.precision, images.device)):
            logits: Tensor = self.model(images.clone())  # the network may change its input
        return logits.float()


@dataclass
class _Part:
    """One side of a split, which is updated when the whole set grows."""

    batches: SyntheticBatches
    fraction: float
    name: str
    is_larger: bool

    def fill(self, whole: SyntheticBatches) -> None:
        side = split_mask(whole.ids, self.fraction, whole.seed, self.name) != self.is_larger
        rows = torch.from_numpy(side).to(whole.device)
        self.batches.ids = whole.ids[side]
        self.batches.images, self.batches.logits = whole.images[rows], whole.logits[rows]
        self.batches.labels = whole.labels[rows]
        for part in self.batches._parts:
            part.fill(self.batches)


class SplitBatches:
    """Training and validation batches of one set, which may be growing; every image keeps its side.

    Args:
        data: The present images.
        teacher: See `SyntheticBatches`.
        config: See `SyntheticBatches`.
        batch_size: See `SyntheticBatches`.
        seed: See `SyntheticBatches`.
        device: See `SyntheticBatches`.
        fraction: Share of the images for validation.
        split_seed: The seed of the split; with an image's id it decides the side.
        planned_ids: The ids (N,) of the finished set; by default those of ``data``.
        precision: See `SyntheticBatches`.
    """

    def __init__(
        self,
        data: SyntheticImages,
        teacher: Teacher,
        config: DistillationConfig,
        batch_size: int,
        seed: int,
        device: torch.device,
        fraction: float,
        split_seed: int,
        planned_ids: Ids | None = None,
        precision: Precision = "float32",
    ):
        self._fraction, self._seed = fraction, split_seed
        planned = data.ids if planned_ids is None else planned_ids
        mask, planned_mask = self._mask(data.ids), self._mask(planned)
        self.train, self.validation = (
            SyntheticBatches(
                data.select(side),
                teacher,
                config,
                batch_size,
                seed,
                device,
                planned_ids=planned[planned_side],
                precision=precision,
            )
            for side, planned_side in ((~mask, ~planned_mask), (mask, planned_mask))
        )

    def take(self, data: SyntheticImages) -> None:
        """Replace the images by a larger part of the planned set."""
        mask = self._mask(data.ids)
        self.train.take(data.select(~mask))
        self.validation.take(data.select(mask))

    @property
    def ids(self) -> Ids:
        """The ids (N,) of the present images, training images first."""
        return np.concatenate([self.train.ids, self.validation.ids])

    def _mask(self, ids: Ids) -> np.ndarray[Any, Any]:
        return split_mask(ids, self._fraction, self._seed)


def _channels_last(images: Tensor) -> Tensor:
    """Return the same images in the memory layout in which convolutions are fastest."""
    return images.contiguous(memory_format=torch.channels_last)
