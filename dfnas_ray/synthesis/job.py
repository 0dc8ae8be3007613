"""The shards of one synthetic set: what they have in common, and how one is committed."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from dfnas_ray.storage.location import Location
from dfnas_ray.storage.manifest import ManifestEntry
from dfnas_ray.storage.shards import ShardInfo, encode_shard, manifest_entry, shard_name
from dfnas_ray.synthesis.config import SynthesisConfig
from dfnas_ray.synthesis.shard import ShardImages


@dataclass(frozen=True)
class ShardJob:
    """What every shard of one set has in common.

    Attributes:
        config: Settings of the synthesis.
        seed: Of the set.
        key: Of the stage that the set belongs to.
        teacher_fingerprint: Of whose images they are.
        folder: Where shards are committed.
    """

    config: SynthesisConfig
    seed: int
    key: str
    teacher_fingerprint: str
    folder: Location

    def commit(self, made: ShardImages, shard: int) -> ManifestEntry:
        """Write a finished shard, whole or not at all; return its line in the manifest."""
        info = ShardInfo(
            key=self.key,
            shard=shard,
            num_shards=self.config.num_shards,
            teacher=self.teacher_fingerprint,
            curves=[[asdict(point) for point in curve] for curve in made.curves],
        )
        data = encode_shard(info, made.images, made.labels, made.rounds, made.logits)
        (self.folder / shard_name(shard)).write_bytes(data)
        return manifest_entry(shard, data, len(made.labels))
