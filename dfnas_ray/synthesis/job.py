"""The shards of one synthetic set: what they share, how one is committed, and how the next one goes on from it."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Self

from dfnas_ray.errors import AlteredError, ShardError
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.manifest import ManifestEntry
from dfnas_ray.storage.shards import (
    ShardInfo,
    SyntheticImages,
    decode_shard,
    encode_shard,
    manifest_entry,
    read_info,
    sha256,
    shard_name,
)
from dfnas_ray.synthesis.base import Chain, ShardImages
from dfnas_ray.synthesis.config import SynthesisConfig
from dfnas_ray.teachers.base import ImageShape, Teacher
from dfnas_ray.teachers.class_names import ClassNames, unique_names

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TeacherLabel:
    """What a shard records about its teacher.

    Attributes:
        fingerprint: See `Teacher`.
        image_shape: (C, H, W) of the centre of a canvas.
        class_names: See `Teacher`.
    """

    fingerprint: str
    image_shape: ImageShape
    class_names: ClassNames | None = None

    @classmethod
    def of(cls, teacher: Teacher) -> Self:
        """Return the label of a teacher."""
        return cls(teacher.fingerprint, teacher.image_shape, teacher.class_names)


@dataclass(frozen=True)
class ShardJob(Chain):
    """What every shard of one set has in common.

    Attributes:
        config: Settings of the synthesis.
        seed: The seed of the set.
        key: The key of the stage that makes the set.
        teacher: The teacher that the images are made from.
        folder: The folder in which shards are committed.
    """

    config: SynthesisConfig
    seed: int
    key: str
    teacher: TeacherLabel
    folder: Location

    def commit(self, made: ShardImages, shard: int) -> ManifestEntry:
        """Write the state of a finished shard, then the shard, each one atomically. Return its line in the manifest."""
        if made.state:
            self._state(shard).write_bytes(made.state)
        info = ShardInfo(
            key=self.key,
            shard=shard,
            num_shards=self.config.num_shards,
            teacher=self.teacher.fingerprint,
            curves=[[asdict(point) for point in curve] for curve in made.curves],
            state=sha256(made.state) if made.state else "",
            image_shape=list(self.teacher.image_shape),
        )
        names = unique_names(made.logits.shape[1], self.teacher.class_names)
        data = encode_shard(info, made.images, made.labels, made.rounds, made.logits, names)
        (self.folder / shard_name(shard)).write_bytes(data)
        return manifest_entry(shard, data, len(made.labels))

    def predecessor(self, shard: int) -> int | None:
        """Return the shard that has to be made before this one, if there is one."""
        return self.config.method.predecessor(shard, self.config)

    @property
    def ends(self) -> list[int]:
        """The last shard of each chain."""
        shards = range(self.config.num_shards)
        return sorted(set(shards) - {self.predecessor(shard) for shard in shards})

    def delete_states(self) -> None:
        """Delete all states of a complete set: no shard goes on from them any more."""
        for shard in range(self.config.num_shards):
            if self._state(shard).exists():
                self._state(shard).delete_file()

    def to_make(self, missing: Iterable[int]) -> list[int]:
        """Return the shards that have to be made for the missing ones, in the order of their numbers.

        If the state of a shard's predecessor is gone, the predecessor is made again too, with the same bytes.
        """
        todo: set[int] = set()
        for shard in missing:
            wanted: int | None = shard
            while wanted is not None and wanted not in todo:
                todo.add(wanted)
                wanted = self.predecessor(wanted)
                if wanted is not None and self.has_state(wanted):
                    break
        return sorted(todo)

    # The chain

    def state(self, shard: int) -> bytes:
        """See `Chain`."""
        file = self._state(shard)
        data = file.read_bytes()
        if sha256(data) != self._info(shard).state:
            raise ShardError(
                f"{file} is not the state that shard {shard} left. Running the same command again replaces it."
            )
        return data

    def images(self, shard: int) -> SyntheticImages:
        """See `Chain`."""
        location = self.folder / shard_name(shard)
        return decode_shard(location.read_bytes(), self.key, str(location))[1]

    def has_state(self, shard: int) -> bool:
        """Return whether the state that a shard left exists, and is unchanged."""
        if not (self._state(shard).exists() and (self.folder / shard_name(shard)).exists()):
            return False
        try:
            self.state(shard)
        except AlteredError as error:
            logger.warning("%s", error)
            return False
        return True

    def _info(self, shard: int) -> ShardInfo:
        return read_info(self.folder / shard_name(shard))

    def _state(self, shard: int) -> Location:
        return self.folder / f"state-{shard:05d}.pt"
