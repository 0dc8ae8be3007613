"""The contract of a source of images, and what all that are drawn have in common.

Every set has the size and the canvas of the synthetic one unless its settings say otherwise, and the same teacher labels
it: what differs between two sets is then the content of the images alone.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np
import torch

from dfnas_ray.config.member import MemberConfig
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
        images: In all.
        rows: Of every shard but the last, which may have fewer.
        canvas: (C, H', W').
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
        """Return the size of a set of so many images, in shards and on canvases like these."""
        return replace(self, images=images, rows=min(self.rows, images))

    @property
    def token(self) -> SetSize:
        """The size of a set that has to be there, and that nothing depends on."""
        return self.of(min(_TOKEN_IMAGES, self.images))

    @property
    def ids(self) -> Ids:
        """Those of synthetic images, so that all sets are split into training and validation alike."""
        return np.concatenate([ids_of_shard(shard, self.rows_of(shard)) for shard in range(self.shards)])


@dataclass(frozen=True)
class Drawn:
    """The images of one shard.

    Attributes:
        canvases: uint8 (N, C, H', W').
        labels: int64 (N,), their own; None: what the teacher says.
    """

    canvases: Canvases
    labels: np.ndarray[Any, np.dtype[np.int64]] | None = None


Drawer: TypeAlias = Callable[[int], Drawn]
"""Draws the shard of a number: the same one whenever it is asked."""


class SourceConfig(MemberConfig):
    """What the settings of all sources have in common.

    Attributes:
        kind: The name under which experiment files know the source; each one defines its own, as a field.
    """

    if TYPE_CHECKING:
        kind: str

    is_data_free: ClassVar[bool] = True
    """Whether its images can be had without the data that the teacher was trained on, or others like it."""

    is_synthetic: ClassVar[bool] = False
    """Whether the synthesis stage makes its images."""

    @property
    def is_labelled(self) -> bool:
        """Whether its images have labels of their own, which say something."""
        return False

    @property
    def description(self) -> str:
        """What tables call it."""
        return self.kind if self.is_data_free else f"{self.kind} (not data-free)"

    def size(self, like: SetSize, setting: str) -> SetSize:
        """Return how many images it gives.

        Args:
            like: The size of the synthetic set.
            setting: What errors call these settings.

        Raises:
            DatasetError: it has fewer than are asked for.
        """
        return like


class DrawnSource(SourceConfig):
    """A source that draws its images; the synthetic ones are made by synthesis."""

    def files(self, setting: str) -> JsonObject:
        """Return what its images depend on beside these settings, the teacher and the seed: digests of files.

        Raises:
            DatasetError: a file is missing.
        """
        return {}

    @abstractmethod
    def drawer(self, teacher: Teacher, size: SetSize, seed: int, setting: str) -> Drawer:
        """Return what draws its shards.

        Args:
            teacher: Whose input the images are for.
            size: Of the set.
            seed: Of all draws.
            setting: What errors call these settings.

        Raises:
            DatasetError: its images cannot be used.
        """


@torch.no_grad()
def ask_teacher(teacher: Teacher, canvases: Canvases) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return the teacher's logits (N, num_classes) on the canvases' centres; it works where it is."""
    logits, device = [], device_of(teacher.model)
    for start in range(0, len(canvases), _BATCH_SIZE):
        part = torch.from_numpy(np.array(canvases[start : start + _BATCH_SIZE])).to(device)
        view = center_crop(part, (teacher.image_shape[1], teacher.image_shape[2]))
        logits.append(teacher.model(teacher.normalize(view)).float().cpu())
    stored: np.ndarray[Any, np.dtype[np.float32]] = torch.cat(logits).numpy()
    return stored


def labelled(teacher: Teacher, drawn: Drawn, shard: int) -> SyntheticImages:
    """Let the teacher label a shard, as it labels finished synthetic images."""
    logits = ask_teacher(teacher, drawn.canvases)
    labels = logits.argmax(1).astype(np.int64) if drawn.labels is None else drawn.labels
    rows = len(drawn.canvases)
    return SyntheticImages(drawn.canvases, labels, np.zeros(rows, np.int64), logits, ids_of_shard(shard, rows))


def draw_all(teacher: Teacher, config: DrawnSource, size: SetSize, seed: int, setting: str) -> SyntheticImages:
    """Return a whole set in memory, labelled."""
    drawer = config.drawer(teacher, size, seed, setting)
    return SyntheticImages.concatenate([labelled(teacher, drawer(shard), shard) for shard in range(size.shards)])
