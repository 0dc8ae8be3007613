"""Sets of images beside the synthetic one, of the same size, on the same canvas, labelled by the same teacher.

What differs between two rankings is then the content of the images alone. Real images are for comparison only: a
ranking made on them is not data-free, and their own labels are never used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dfnas_ray.datasets.base import ImageDataset, read_image, to_uint8
from dfnas_ray.errors import DatasetError
from dfnas_ray.ops.networks import device_of
from dfnas_ray.ops.regions import center_crop
from dfnas_ray.seeding import numpy_generator, torch_generator
from dfnas_ray.storage.shards import SyntheticImages
from dfnas_ray.synthesis.config import SynthesisConfig
from dfnas_ray.teachers.base import Teacher

_BATCH_SIZE = 250
_TOKEN_IMAGES = 256

Canvases = np.ndarray[Any, np.dtype[np.uint8]]
"""(N, C, H', W')."""


@dataclass(frozen=True)
class SetSize:
    """How large the synthetic set is.

    Attributes:
        shards: Number of shards.
        rows: Images of each, of all rounds that are kept.
        canvas: (C, H', W').
    """

    shards: int
    rows: int
    canvas: tuple[int, int, int]

    @classmethod
    def of(cls, config: SynthesisConfig, image_shape: tuple[int, int, int]) -> SetSize:
        """Return the size that these settings give."""
        channels, height, width = image_shape
        rows = config.images_in_total // config.num_shards
        return cls(config.num_shards, rows, (channels, *config.canvas_size(height, width)))

    @property
    def images(self) -> int:
        """Number of images."""
        return self.shards * self.rows

    @property
    def token(self) -> SetSize:
        """The size of a set that has to be there, and that nothing depends on."""
        return SetSize(1, min(_TOKEN_IMAGES, self.images), self.canvas)

    @property
    def ids(self) -> np.ndarray[Any, np.dtype[np.uint64]]:
        """Those of the synthetic images, so that all sets are split into training and validation alike."""
        shard, row = np.divmod(np.arange(self.images, dtype=np.uint64), np.uint64(self.rows))
        return (shard << np.uint64(32)) + row


def noise_canvases(teacher: Teacher, size: SetSize, seed: int) -> Canvases:
    """Draw Gaussian noise in the teacher's normalised space, clamped to valid pixels and rounded to uint8."""
    generator = torch_generator(seed, "benchmark-noise")
    canvases = np.empty((size.images, *size.canvas), np.uint8)
    for start in range(0, size.images, _BATCH_SIZE):
        part = canvases[start : start + _BATCH_SIZE]
        part[:] = teacher.denormalize(torch.randn(part.shape, generator=generator)).numpy()
    return canvases


def real_canvases(dataset: ImageDataset, image_shape: tuple[int, int, int], size: SetSize, seed: int) -> Canvases:
    """Draw real images without replacement, and enlarge each to the canvas by reflection at its edges.

    Raises:
        DatasetError: the dataset has fewer images than the synthetic set, or one cannot be used.
    """
    if len(dataset) < size.images:
        raise DatasetError(
            f"benchmark.real: {dataset.description} holds {len(dataset):,} images, and the synthetic set, with which they "
            f"are compared, {size.images:,}. Give more, or make fewer with synthesis.num_shards or images_per_shard."
        )
    drawn = numpy_generator(seed, "benchmark-real").permutation(len(dataset))[: size.images]
    margins = [outer - inner for outer, inner in zip(size.canvas[1:], image_shape[1:], strict=True)]
    padding = [(0, 0), *((margin // 2, margin - margin // 2) for margin in margins)]
    return np.stack([np.pad(_pixels(dataset, int(index), image_shape), padding, mode="reflect") for index in drawn])


def _pixels(dataset: ImageDataset, index: int, image_shape: tuple[int, int, int]) -> Canvases:
    image, _, where = read_image(dataset, index, "benchmark.real")  # its label stays unused
    pixels: Canvases = to_uint8(image, image_shape, where).numpy()
    return pixels


@torch.no_grad()
def labelled(teacher: Teacher, canvases: Canvases, size: SetSize) -> SyntheticImages:
    """Let the teacher label the canvases' centres, as it labels finished synthetic images; it works where it is."""
    logits, device = [], device_of(teacher.model)
    for start in range(0, len(canvases), _BATCH_SIZE):
        part = torch.from_numpy(np.array(canvases[start : start + _BATCH_SIZE])).to(device)
        view = center_crop(part, (teacher.image_shape[1], teacher.image_shape[2]))
        logits.append(teacher.model(teacher.normalize(view)).float().cpu())
    stored = torch.cat(logits).numpy()
    return SyntheticImages(
        images=canvases,
        labels=stored.argmax(1).astype(np.int64),
        rounds=np.zeros(len(canvases), np.int64),
        logits=stored,
        ids=size.ids,
    )
