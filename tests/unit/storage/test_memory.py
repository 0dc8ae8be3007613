"""Arrays that may be larger than the free memory, and what is free."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from dfnas_ray.errors import ShardError, StorageError
from dfnas_ray.storage import memory
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.manifest import Manifest
from dfnas_ray.storage.shard_sets import load_shards
from dfnas_ray.storage.shards import ShardInfo, SyntheticImages, encode_shard, ids_of_shard, manifest_entry, shard_name

SIDE = 600  # three images take more than a megabyte: smaller arrays are never in a file


@pytest.fixture
def little_memory(monkeypatch):
    """A machine on which half of the free memory is less than a set of images."""
    monkeypatch.setattr(memory, "free_memory", lambda: 2**20)


def mapped_files():
    """The files without a name that are mapped into this process."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return [line for line in lines if line.endswith("(deleted)") and tempfile.gettempdir() in line]


def part(shard, rows=3):
    rng = np.random.default_rng(shard)
    return SyntheticImages(
        images=rng.integers(0, 256, (rows, 1, SIDE, SIDE), dtype=np.uint8),
        labels=rng.integers(0, 5, rows),
        rounds=np.zeros(rows, np.int64),
        logits=rng.normal(size=(rows, 5)).astype(np.float32),
        ids=ids_of_shard(shard, rows),
    )


@pytest.fixture
def folder(tmp_path):
    """Two shards and their manifest."""
    place, entries = Location.parse(tmp_path), []
    for shard in range(2):
        images = part(shard)
        info = ShardInfo("key", shard, 2, "teacher", [])
        data = encode_shard(info, images.images, images.labels, images.rounds, images.logits)
        (place / shard_name(shard)).write_bytes(data)
        entries.append(manifest_entry(shard, data, 3))
    Manifest(key="key", shards=tuple(entries)).write(place)
    return place


def test_an_array_that_fits_is_in_memory():
    before = mapped_files()
    array = memory.empty_array((3, 2**20), np.uint8, "The images")
    assert array.shape == (3, 2**20)
    assert mapped_files() == before


@pytest.mark.usefixtures("little_memory")
def test_a_large_array_is_in_a_file_that_ends_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(memory, "_is_in_memory", lambda folder: False)
    before = len(mapped_files())
    array = memory.empty_array((3, 2**20), np.uint8, "The images")
    array[2, 7] = 200
    assert array[2, 7] == 200
    assert type(array) is np.ndarray  # what an object store takes without a copy
    assert len(mapped_files()) == before + 1
    assert list(tmp_path.iterdir()) == []
    del array
    assert len(mapped_files()) == before


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("gigabytes", [2**21, 2**40])
def test_a_disk_without_room_is_said_before_anything_is_written(gigabytes, monkeypatch):
    monkeypatch.setattr(memory, "_is_in_memory", lambda folder: False)
    with pytest.raises(StorageError, match=r"The images take .*B, and .*B of memory are free\. .* no room .* TMPDIR"):
        memory.empty_array((gigabytes, 2**30), np.uint8, "The images")


@pytest.mark.usefixtures("little_memory")
def test_a_folder_that_is_in_memory_is_no_room(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "inner"))
    mounted = [
        SimpleNamespace(mountpoint="/", fstype="ext4"),
        SimpleNamespace(mountpoint=str(tmp_path), fstype="tmpfs"),
    ]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: mounted)
    with pytest.raises(StorageError, match=r"inner, has no room for them: it is in memory, too\."):
        memory.empty_array((3, 2**20), np.uint8, "The images")


def test_a_folder_on_a_disk_within_a_folder_in_memory_has_room(tmp_path, monkeypatch):
    mounted = [
        SimpleNamespace(mountpoint="/", fstype="tmpfs"),
        SimpleNamespace(mountpoint=str(tmp_path), fstype="ext4"),
    ]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: mounted)
    assert not memory._is_in_memory(str(tmp_path / "inner"))


@pytest.mark.parametrize(
    ("version", "figures"),
    [
        (2, {"memory.max": "1000000", "memory.current": "700000", "memory.stat": "anon 1\ninactive_file 200000\n"}),
        (
            1,
            {
                "memory.limit_in_bytes": "1000000",
                "memory.usage_in_bytes": "700000",
                "memory.stat": "total_inactive_file 200000\n",
            },
        ),
    ],
)
def test_the_limit_of_a_container_counts(tmp_path, monkeypatch, version, figures):
    group = tmp_path if version == 2 else tmp_path / "memory"
    group.mkdir(exist_ok=True)
    for name, text in figures.items():
        (group / name).write_text(text)
    monkeypatch.setattr(memory, "_CONTROL_GROUPS", tmp_path)
    assert memory.free_memory() == 500_000


def test_a_container_without_a_limit_has_the_machines_memory(tmp_path, monkeypatch):
    for name, text in {"memory.max": "max", "memory.current": "5", "memory.stat": "inactive_file 0\n"}.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(memory, "_CONTROL_GROUPS", tmp_path)
    assert memory.free_memory() == pytest.approx(psutil.virtual_memory().available, rel=0.2)


def test_a_set_in_a_file_is_the_set_in_memory(folder, monkeypatch):
    manifest = Manifest.read(folder)
    in_memory = load_shards(folder, manifest)
    monkeypatch.setattr(memory, "free_memory", lambda: 2**20)
    monkeypatch.setattr(memory, "_is_in_memory", lambda folder: False)
    before = len(mapped_files())
    in_file = load_shards(folder, manifest)
    assert len(mapped_files()) == before + 1
    for name, values in vars(in_memory).items():
        assert np.array_equal(getattr(in_file, name), values), name
    expected = SyntheticImages.concatenate([part(0), part(1)])
    assert np.array_equal(in_file.images, expected.images)
    assert np.array_equal(in_file.ids, expected.ids)


def test_a_manifest_with_another_number_of_images_is_refused(folder):
    manifest = Manifest.read(folder)
    first = manifest.shards[0].model_copy(update={"rows": 4})
    altered = manifest.model_copy(update={"shards": (first, *manifest.shards[1:])})
    with pytest.raises(ShardError, match="has 3 images, not 4"):
        load_shards(folder, altered)


def test_shards_that_do_not_fit_together_are_refused(folder):
    manifest = Manifest.read(folder)
    other = part(1)
    data = encode_shard(
        ShardInfo("key", 1, 2, "teacher", []), other.images[..., :8, :8], other.labels, other.rounds, other.logits
    )
    (folder / shard_name(1)).write_bytes(data)
    mixed = manifest.model_copy(update={"shards": (manifest.shards[0], manifest_entry(1, data, 3))})
    with pytest.raises(
        ShardError, match=r"Shards do not fit together: their images have the shapes \(1, 600, 600\) and \(1, 8, 8\)\."
    ):
        load_shards(folder, mixed)
