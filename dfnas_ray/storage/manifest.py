"""The manifest of a finished set of images: its shards, with their sizes and digests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from dfnas_ray.errors import AlteredError
from dfnas_ray.storage.location import Location

_FILE = "manifest.json"


class ManifestEntry(BaseModel):
    """The manifest's entry for one shard."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shard: int = Field(ge=0)
    file: str = Field(pattern=r"^shard-\d{5,}\.parquet$")  # never a path that leads elsewhere
    rows: int = Field(ge=0)
    bytes: int = Field(ge=0)
    sha256: str


class Manifest(BaseModel):
    """The shards of a finished set, in order.

    Attributes:
        key: The key of the stage that made the set.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    shards: tuple[ManifestEntry, ...]

    @classmethod
    def read(cls, folder: Location) -> Self:
        """Return the manifest of a set's folder.

        Raises:
            StorageError: it is missing, of another version, or was altered.
        """
        return (folder / _FILE).read_model(cls)

    @classmethod
    def find(cls, folder: Location) -> Self | None:
        """Return the manifest of a set's folder; None if there is none."""
        return cls.read(folder) if (folder / _FILE).exists() else None

    @classmethod
    def find_unaltered(cls, folder: Location) -> Self | None:
        """Return the manifest of a set's folder; None if it is missing or was altered."""
        try:
            return cls.find(folder)
        except AlteredError:
            return None

    def write(self, folder: Location) -> None:
        """Write the manifest into the set's folder."""
        (folder / _FILE).write_model(self)

    @property
    def rows(self) -> int:
        """The number of images in all shards."""
        return sum(entry.rows for entry in self.shards)

    @property
    def bytes(self) -> int:
        """The size of all shards in bytes."""
        return sum(entry.bytes for entry in self.shards)

    @staticmethod
    def by_shard(entries: Sequence[ManifestEntry]) -> dict[int, ManifestEntry]:
        """Return entries by the number of their shard."""
        return {entry.shard: entry for entry in entries}
