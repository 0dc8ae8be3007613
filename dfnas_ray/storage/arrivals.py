"""Sets of images that are still being made: the shards that exist, and the shards that each epoch of a training used.

A shard is complete or absent, so a listing of the folder shows which shards exist. No process has to keep track of
them.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from pydantic import RootModel

from dfnas_ray.errors import StorageError
from dfnas_ray.storage.altered import reason, storage_fails
from dfnas_ray.storage.location import Count, Location
from dfnas_ray.storage.shards import Ids, SyntheticImages, check_rows, decode_shard, shard_name, shard_of


class ShardsMissing(Exception):  # noqa: N818 - no error: the shards will come
    """Shards that are needed now do not exist yet."""


class ShardSource(Protocol):
    """A source of the shards of a set."""

    @property
    def ids(self) -> Ids:
        """The ids (N,) of all images of the finished set, in order, whether they exist yet or not."""
        ...

    def present(self) -> list[int]:
        """Return the numbers of the shards that exist, in order."""
        ...

    def load(self, shards: Collection[int]) -> SyntheticImages:
        """Return the images of these shards, in order. All of them must exist."""
        ...


@dataclass(frozen=True)
class ShardFolder:
    """The folder of a set that is being made. It can be sent to another process.

    Damaged shards must be removed from it first: only a finished set has a manifest to compare them with.

    Attributes:
        folder: The folder in which shards appear.
        key: The key of the synthesis stage.
        num_shards: The number of shards in the finished set.
        rows: The number of images in each shard.
    """

    folder: Location
    key: str
    num_shards: int
    rows: int

    @property
    def ids(self) -> Ids:
        """See `ShardSource`."""
        shards, rows = np.arange(self.num_shards, dtype=np.uint64), np.arange(self.rows, dtype=np.uint64)
        return ((shards[:, None] << np.uint64(32)) + rows).reshape(-1).astype(np.uint64)

    def present(self) -> list[int]:
        """See `ShardSource`."""
        found = (re.fullmatch(r"shard-(\d{5,})\.parquet", name) for name in self.folder.file_names())
        return sorted(int(match[1]) for match in found if match and int(match[1]) < self.num_shards)

    def load(self, shards: Collection[int]) -> SyntheticImages:
        """See `ShardSource`.

        Raises:
            ShardError: a shard is truncated or belongs to other settings.
        """
        return SyntheticImages.collect(map(self._load_one, sorted(shards)), len(shards) * self.rows)

    def _load_one(self, shard: int) -> SyntheticImages:
        file = self.folder / shard_name(shard)
        images = decode_shard(file.read_bytes(), self.key, str(file))[1]
        check_rows(images, self.rows, str(file))
        return images


@dataclass(frozen=True)
class WholeSet:
    """A finished set in memory."""

    images: SyntheticImages

    @property
    def ids(self) -> Ids:
        """See `ShardSource`."""
        return self.images.ids

    def present(self) -> list[int]:
        """See `ShardSource`."""
        return [int(shard) for shard in np.unique(shard_of(self.images.ids))]

    def load(self, shards: Collection[int]) -> SyntheticImages:
        """See `ShardSource`."""
        if set(shards) >= set(self.present()):
            return self.images
        return self.images.select(np.isin(shard_of(self.images.ids), np.array(sorted(shards), np.uint64)))


class Arrivals(RootModel[list[list[Count]]]):
    """For each epoch, the numbers of the shards that were new in it: ``shards.json``."""


class GrowingSet:
    """A set that is still being made, as each epoch of a training sees it.

    The shards of an epoch are recorded before the epoch begins. If it is interrupted, it is repeated on the same
    images, on any machine.

    Args:
        source: The source of the shards.
        record: The file of `Arrivals`.

    Raises:
        StorageError: the file was altered.
    """

    def __init__(self, source: ShardSource, record: Location):
        self.source, self._record = source, record
        self._total = len(np.unique(shard_of(source.ids)))
        self.arrivals = self._read()
        self._loaded: list[int] = []
        self._images: SyntheticImages | None = None

    def of_epoch(self, epoch: int) -> list[int]:
        """Return the shards of an epoch: those that are recorded for it, or else all that exist now.

        Args:
            epoch: The epoch, from 0. Earlier epochs must have been asked for before.

        Raises:
            ShardsMissing: no shard exists yet.
        """
        known = self._known(epoch)
        if len(self.arrivals) <= epoch and len(known) < self._total:
            new = sorted(set(self.source.present()) - set(known))
            if not known and not new:
                raise ShardsMissing
            self.arrivals.append(new)
            self._record.write_json(self.arrivals)
            known = self._known(epoch)
        return known

    def whole(self) -> list[int]:
        """Return all shards.

        Raises:
            ShardsMissing: some do not exist yet.
        """
        present = self.source.present()
        if len(present) < self._total:
            raise ShardsMissing
        return present

    def load(self, shards: list[int]) -> SyntheticImages:
        """Return the images of these shards, in order. Shards that were loaded before are not read again.

        Raises:
            ShardsMissing: a shard was lost after it was seen, and is being made again.
        """
        if self._images is None or not set(self._loaded) <= set(shards):
            self._loaded, self._images = [], None
        new = sorted(set(shards) - set(self._loaded))
        if new:
            if not set(new) <= set(self.source.present()):
                raise ShardsMissing
            self._images = self.source.load(new) if self._images is None else self._with(self._images, shards)
            self._loaded = sorted(shards)
        assert self._images is not None
        images = self._images
        if len(shards) == self._total:
            self._images = None  # nothing will be added: from now on only the caller holds them
        return images

    def _with(self, images: SyntheticImages, shards: Collection[int]) -> SyntheticImages:
        """Return the images of these shards, in order; ``images`` are those that were loaded before."""
        loaded = shard_of(images.ids)

        def part(shard: int) -> SyntheticImages:
            first, end = np.searchsorted(loaded, shard), np.searchsorted(loaded, shard, side="right")
            return images.select(slice(first, end)) if end > first else self.source.load([shard])

        rows = int(np.isin(shard_of(self.source.ids), np.array(sorted(shards), np.uint64)).sum())
        return SyntheticImages.collect(map(part, sorted(shards)), rows)

    def _read(self) -> list[list[int]]:
        if not self._record.exists():
            return []
        folder = str(self._record).rpartition("/")[0]
        advice = f"It lists the shards of each epoch: delete the folder {folder} and run again."
        try:
            arrivals = self._record.read_model(Arrivals).root
        except StorageError as error:
            if storage_fails(error):
                raise
            raise StorageError(f"{reason(error)} {advice}") from error
        numbers = [shard for new in arrivals for shard in new]
        if len(set(numbers)) < len(numbers) or not set(numbers) <= {
            int(s) for s in np.unique(shard_of(self.source.ids))
        }:
            raise StorageError(f"{self._record} was altered: it lists a shard twice, or one of another set. {advice}")
        return arrivals

    def _known(self, epoch: int) -> list[int]:
        return sorted(shard for new in self.arrivals[: epoch + 1] for shard in new)
