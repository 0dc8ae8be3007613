"""Whole sets of shards in a folder: which shards are intact, and the images of all of them."""

from __future__ import annotations

from collections.abc import Callable

from dfnas_ray.errors import AlteredError, ShardError
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.manifest import Manifest, ManifestEntry
from dfnas_ray.storage.shards import (
    REMEDY,
    SyntheticImages,
    check_rows,
    decode_shard,
    manifest_entry,
    shard_name,
    verify_entry,
)


def intact_shards(folder: Location, key: str, num_shards: int, say: Callable[[str], None]) -> dict[int, ManifestEntry]:
    """Return the manifest entries of the shards that exist and are intact, by the shards' numbers.

    Args:
        folder: The folder of the set; it may have no manifest yet.
        key: The key of the stage that makes the set.
        num_shards: The number of shards in the whole set.
        say: Called with a message for each shard that is damaged or altered.
    """
    manifest = Manifest.find_unaltered(folder)
    expected = Manifest.by_shard(manifest.shards) if manifest is not None else {}
    intact = {}
    for shard in range(num_shards):
        file = folder / shard_name(shard)
        if not file.exists():
            continue
        data = file.read_bytes()
        try:
            if shard in expected:
                verify_entry(data, expected[shard], str(file))  # before the data is decoded
            info, images = decode_shard(data, key, str(file))
        except AlteredError as error:
            say(str(error))
            continue
        entry = manifest_entry(shard, data, len(images))
        if info.shard != shard or expected.get(shard, entry) != entry:
            say(f"Shard {file} is not the one that was made. It is replaced.")
            continue
        intact[shard] = entry
    return intact


def load_shards(folder: Location, manifest: Manifest) -> SyntheticImages:
    """Return the images of every shard that the manifest lists, in order.

    Raises:
        ShardError: a shard is missing, or differs from the one that was committed. The message names it.
    """
    if not manifest.shards:
        raise ShardError(f"The manifest of {folder} lists no shard. {REMEDY}")
    return SyntheticImages.collect((_load(folder, entry, manifest.key) for entry in manifest.shards), manifest.rows)


def _load(folder: Location, entry: ManifestEntry, key: str) -> SyntheticImages:
    location = folder / entry.file
    if not location.exists():
        raise ShardError(f"Shard {location} is missing. {REMEDY}")
    data = location.read_bytes()
    verify_entry(data, entry, str(location))
    images = decode_shard(data, key, str(location))[1]
    check_rows(images, entry.rows, str(location))
    return images
