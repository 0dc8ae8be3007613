"""Batches of synthetic images on the device.

The set is kept once, as uint8 canvases, and all parts of it are rows of them; see `DeviceImages`. The content of a batch
depends only on the seed, the epoch, the number of the batch and the present images. So training that resumes at an epoch
continues as if it had never stopped.

A set may still be growing. An epoch then has as many steps as on the finished set, and repeats the present images as
often as needed. So the learning rate follows its schedule, and with the complete set nothing changes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, count, islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dfnas_ray.errors import ConfigError
from dfnas_ray.ops.area_crops import crop_areas, jitter_colors
from dfnas_ray.ops.compiling import compiled_on_cpu
from dfnas_ray.ops.networks import copy_network
from dfnas_ray.ops.precision import Precision, autocast, autocast_dtype
from dfnas_ray.ops.regions import center_crop, crop, draw_region
from dfnas_ray.seeding import torch_generator
from dfnas_ray.storage.shards import Ids, SyntheticImages
from dfnas_ray.teachers.base import Teacher, normalized
from dfnas_ray.training.config import AugmentationConfig, DistillationConfig
from dfnas_ray.training.device_images import DeviceImages
from dfnas_ray.training.splits import Mask, check_split, split_mask


class Batch(NamedTuple):
    """Normalised images (B, C, H, W) and the teacher's logits on them (B, num_classes)."""

    images: Tensor
    teacher_logits: Tensor


class LabelledBatch(NamedTuple):
    """A batch with the images' own labels, int64 (B,)."""

    images: Tensor
    teacher_logits: Tensor
    labels: Tensor


class SyntheticBatches:
    """Batches of some rows of a synthetic set.

    Args:
        images: The images, on the device of the batches.
        teacher: The teacher, which labels varied images and has the input statistics.
        config: Settings of labels and augmentation.
        batch_size: Images per batch on this worker.
        seed: The seed of the order and the augmentation.
        rank: This worker's number among ``world_size``; together they see every image once per epoch.
        world_size: Number of workers.
        side: A mask (N,) of the images to use; by default all.
        planned_ids: The ids of the images to use in the finished set, if ``images`` is a part of it that will grow.
        precision: The precision in which the teacher labels varied images.
        asks_teacher: Whether the teacher labels varied images. If not, batches have the stored logits, for training
            that does not use them.
    """

    def __init__(
        self,
        images: DeviceImages,
        teacher: Teacher,
        config: DistillationConfig,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        side: Mask | None = None,
        planned_ids: Ids | None = None,
        precision: Precision = "float32",
        asks_teacher: bool = True,
    ):
        self.images, self.teacher, self.config, self.seed = images, teacher, config, seed
        self.batch_size, self.rank, self.world_size = batch_size, rank, world_size
        self.precision: Precision = precision
        self.asks_teacher = asks_teacher
        self.input_size = teacher.image_shape[1:]
        self._parts: list[_Part] = []
        self.use(np.ones(len(images), np.bool_) if side is None else side)
        self.planned_ids = self.ids if planned_ids is None else planned_ids
        self.model = copy_network(teacher.model).to(images.device).to(memory_format=torch.channels_last)
        self._compiled: Callable[[Tensor], Tensor] | None = None

    def __len__(self) -> int:
        """Return the batches per epoch of the finished set, without a smaller last batch unless it is the only one."""
        return max(1, len(self.planned_ids) // (self.batch_size * self.world_size))

    @property
    def device(self) -> torch.device:
        """The device of the batches."""
        return self.images.device

    @property
    def labels(self) -> Tensor:
        """The images' own labels, int64 (n,), on the device."""
        return self.images.labels[self._rows.to(self.device)]

    def use(self, side: Mask) -> None:
        """Use the images of a mask (N,) from now on; the parts returned by `split` are updated, too."""
        self._take(np.flatnonzero(side))

    def _take(self, rows: np.ndarray[Any, Any]) -> None:
        self._rows, self.ids = torch.from_numpy(rows), self.images.ids[rows]
        for part in self._parts:
            part.fill(self)

    def to(self, device: torch.device) -> None:
        """Move the set and the teacher to a device."""
        self.images.to(device)
        self.model.to(device)

    def compile_teacher(self, setting: str) -> None:
        """Let torch compile the teacher for batches of one size; ``setting`` asked for it. See `compiled_on_cpu`."""
        self._compiled = compiled_on_cpu(self.model, setting, self.device, is_frozen=True)

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
        return (LabelledBatch(*batch, self.images.labels[rows]) for rows, batch in self._epoch(number))

    def _epoch(self, number: int, skipped: int = 0) -> Iterator[tuple[Tensor, Batch]]:
        """Yield the rows and the batches of an epoch without its first ones. Those after them vary as if they were the first."""
        if not len(self.ids):
            raise ConfigError(
                "search: the first shards hold no image for training. Make larger ones with synthesis.images_per_shard, or "
                "start with more: search.start_after_shards."
            )
        generator = torch_generator(self.seed, "epoch", number)
        total = self.batch_size * self.world_size
        order = torch.randperm(len(self.ids), generator=generator)
        while len(order) < min(len(self) * total, len(self.planned_ids)):  # the set is still growing
            order = torch.cat([order, torch.randperm(len(self.ids), generator=generator)])
        rows = self._rows[order]
        variation, own = self.config.variation, torch_generator(self.seed, "each", number, self.rank)
        for start in range(skipped * total, len(self) * total, total):
            mine = rows[start : start + total][self.rank :: self.world_size].to(self.device)
            if variation is None:
                yield mine, self._unvaried(mine)
            else:
                images = _channels_last(self._vary(self.images.canvases(mine), variation, generator, own))
                logits = self._ask_teacher(images) if self.asks_teacher else self.images.logits[mine]
                yield mine, Batch(images, logits)

    def endless(self, position: int) -> Iterator[Batch]:
        """Yield training batches, epoch after epoch without end, from the batch at ``position`` of this sequence on."""
        number, skipped = divmod(position, len(self))
        yield from (batch for _, batch in self._epoch(number, skipped))
        for later in count(number + 1):
            yield from self.epoch(later)

    def first(self, number: int, from_epoch: int = 0) -> list[Batch]:
        """Return the first ``number`` training batches from epoch ``from_epoch`` on, epoch after epoch."""
        return list(islice(chain.from_iterable(map(self.epoch, count(from_epoch))), number))

    def unvaried(self, batch_size: int | None = None) -> Iterator[Batch]:
        """Yield every image's centre in order, with its stored logits: for validation."""
        size = batch_size or self.batch_size
        for start in range(0, len(self.ids), size):
            yield self._unvaried(self._rows[start : start + size].to(self.device))

    def centres(self, batch_size: int | None = None) -> StoredBatches:
        """Return the batches of `unvaried` as an object of its own, which holds these images only."""
        size = batch_size or self.batch_size
        views = [center_crop(self.images.canvases(rows), self.input_size) for rows in self._rows.split(size)]
        logits = self.images.logits[self._rows.to(self.device)]
        return StoredBatches(torch.cat(views), logits, self.teacher.mean, self.teacher.std, size)

    def _unvaried(self, rows: Tensor) -> Batch:
        view = center_crop(self.images.canvases(rows), self.input_size)
        return Batch(_channels_last(self.teacher.normalize(view)), self.images.logits[rows])

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
            logits: Tensor = (self._compiled or self.model)(images.clone())  # the network may change its input
        return logits.float()


@dataclass
class StoredBatches:
    """Images with stored logits, in order: batches for many rounds of validation, which can be sent to workers.

    They are normalised when a batch is asked for, so that they take a quarter of the memory.

    Attributes:
        images: uint8 (N, C, H, W).
        logits: float32 (N, num_classes).
        mean: The mean of each channel that the teacher expects.
        std: The standard deviation of each channel that the teacher expects.
        batch_size: Images per batch.
    """

    images: Tensor
    logits: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]
    batch_size: int

    def __iter__(self) -> Iterator[Batch]:
        for images, logits in zip(self.images.split(self.batch_size), self.logits.split(self.batch_size), strict=True):
            yield Batch(_channels_last(normalized(images, self.mean, self.std)), logits.clone())

    def to(self, device: torch.device) -> None:
        """Move the images to a device."""
        self.images, self.logits = self.images.to(device), self.logits.to(device)


@dataclass
class _Part:
    """One side of a split, which is updated when the whole set grows."""

    batches: SyntheticBatches
    fraction: float
    name: str
    is_larger: bool

    def fill(self, whole: SyntheticBatches) -> None:
        side = split_mask(whole.ids, self.fraction, whole.seed, self.name) != self.is_larger
        self.batches._take(whole._rows.numpy()[side])


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

    Raises:
        ConfigError: no image of the finished set is for validation, or none for training.
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
        self._images = DeviceImages(data, device)
        planned = data.ids if planned_ids is None else planned_ids
        check_split(planned, fraction, split_seed)
        mask, planned_mask = self._mask(data.ids), self._mask(planned)
        self.train, self.validation = (
            SyntheticBatches(
                self._images,
                teacher,
                config,
                batch_size,
                seed,
                side=side,
                planned_ids=planned[planned_side],
                precision=precision,
            )
            for side, planned_side in ((~mask, ~planned_mask), (mask, planned_mask))
        )

    def take(self, data: SyntheticImages) -> None:
        """Replace the images by a larger part of the planned set."""
        self._images.replace(data)
        mask = self._mask(data.ids)
        self.train.use(~mask)
        self.validation.use(mask)

    @property
    def ids(self) -> Ids:
        """The ids (N,) of the present images, training images first."""
        return np.concatenate([self.train.ids, self.validation.ids])

    def _mask(self, ids: Ids) -> Mask:
        return split_mask(ids, self._fraction, self._seed)


def _channels_last(images: Tensor) -> Tensor:
    """Return the same images in the memory layout in which convolutions are fastest."""
    return images.contiguous(memory_format=torch.channels_last)
