"""The contract of a source of images, and the common parts of sources that draw them.

Unless its settings say otherwise, every set has the size and the canvas of the synthetic one, and the same teacher
labels it. Then two sets differ in the content of their images alone.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np
import torch

from dfnas_ray.config.member import MemberConfig
from dfnas_ray.ops.batching import batch_size_for
from dfnas_ray.ops.networks import device_of
from dfnas_ray.ops.regions import center_crop
from dfnas_ray.storage.location import JsonObject
from dfnas_ray.storage.shards import Ids, SyntheticImages, ids_of_shard
from dfnas_ray.teachers.base import Teacher

_BATCH_SIZE = 250
_TOKEN_IMAGES = 256

Canvases: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]
"""(N, C, H', W')."""


@dataclass(frozen=True)
class SetSize:
    """How large a set of images is.

    Attributes:
        images: Number of images in the set.
        rows: Number of images in every shard but the last, which may have fewer.
        canvas: (C, H', W') of one image.
    """

    images: int
    rows: int
    canvas: tuple[int, int, int]

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.images // self.rows)

    def rows_of(self, shard: int) -> int:
        """Return the number of images in a shard."""
        return min(self.rows, self.images - shard * self.rows)

    def of(self, images: int) -> SetSize:
        """Return the size of a set with another number of images, in shards and on canvases like these."""
        return replace(self, images=images, rows=min(self.rows, images))

    @property
    def token(self) -> SetSize:
        """The size of a small set for where some images are required, but no result depends on them."""
        return self.of(min(_TOKEN_IMAGES, self.images))

    @property
    def ids(self) -> Ids:
        """The ids of the images: those of synthetic images, so that all sets are split for validation alike."""
        return np.concatenate([ids_of_shard(shard, self.rows_of(shard)) for shard in range(self.shards)])


@dataclass(frozen=True)
class Drawn:
    """The images of one shard.

    Attributes:
        canvases: uint8 (N, C, H', W').
        labels: int64 (N,), the images' own labels; None if the teacher labels them.
    """

    canvases: Canvases
    labels: np.ndarray[Any, np.dtype[np.int64]] | None = None


Drawer: TypeAlias = Callable[[int], Drawn]
"""Draws the shard of a given number. It returns the same images at every call."""


class SourceConfig(MemberConfig):
    """The common settings of all sources.

    Attributes:
        kind: The name of the source in experiment files. Each source defines its own, as a field.
    """

    if TYPE_CHECKING:
        kind: str

    is_data_free: ClassVar[bool] = True
    """Whether its images need no data that the teacher was trained on, and no data like it."""

    is_synthetic: ClassVar[bool] = False
    """Whether the synthesis stage makes its images."""

    @property
    def is_labelled(self) -> bool:
        """Whether its images have meaningful labels of their own."""
        return False

    @property
    def description(self) -> str:
        """The name of the source in tables."""
        return self.kind if self.is_data_free else f"{self.kind} (not data-free)"

    def size(self, like: SetSize, setting: str) -> SetSize:
        """Return the size of the set that the source gives.

        Args:
            like: The size of the synthetic set.
            setting: The name of these settings in errors.

        Raises:
            DatasetError: the source has fewer images than are asked for.
        """
        return like


class DrawnSource(SourceConfig):
    """A source that draws its images, unlike the synthetic source, whose images the synthesis stage makes."""

    def inputs(self, teacher: Teacher, setting: str) -> JsonObject:
        """Return what its images depend on, besides these settings, the teacher and the seed: digests of files, for example.

        Raises:
            DatasetError: a file is missing.
        """
        return {}

    @abstractmethod
    def drawer(self, teacher: Teacher, size: SetSize, seed: int, setting: str) -> Drawer:
        """Return the function that draws its shards.

        Args:
            teacher: The teacher, whose input shape the images must fit.
            size: The size of the set.
            seed: The seed of all draws.
            setting: The name of these settings in errors.

        Raises:
            DatasetError: its images cannot be used.
        """


@torch.no_grad()
def ask_teacher(teacher: Teacher, canvases: Canvases) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return the teacher's logits (N, num_classes) on the centres of canvases. The teacher stays on its device."""
    logits, device = [], device_of(teacher.model)
    batch_size = batch_size_for(teacher.image_shape, _BATCH_SIZE, device)
    for start in range(0, len(canvases), batch_size):
        part = torch.from_numpy(np.array(canvases[start : start + batch_size])).to(device)
        view = center_crop(part, (teacher.image_shape[1], teacher.image_shape[2]))
        logits.append(teacher.model(teacher.normalize(view)).float().cpu())
    stored: np.ndarray[Any, np.dtype[np.float32]] = torch.cat(logits).numpy()
    return stored


def labelled(teacher: Teacher, drawn: Drawn, shard: int) -> SyntheticImages:
    """Return a shard labelled by the teacher, as finished synthetic images are."""
    logits = ask_teacher(teacher, drawn.canvases)
    labels = logits.argmax(1).astype(np.int64) if drawn.labels is None else drawn.labels
    rows = len(drawn.canvases)
    return SyntheticImages(drawn.canvases, labels, np.zeros(rows, np.int64), logits, ids_of_shard(shard, rows))


def draw_all(teacher: Teacher, config: DrawnSource, size: SetSize, seed: int, setting: str) -> SyntheticImages:
    """Return a whole set in memory, labelled."""
    drawer = config.drawer(teacher, size, seed, setting)
    return SyntheticImages.concatenate([labelled(teacher, drawer(shard), shard) for shard in range(size.shards)])
