"""A set that is being made, and what each epoch is given of it."""

from __future__ import annotations

import numpy as np
import pytest

from dfnas_ray.errors import ShardError, StorageError
from dfnas_ray.storage.arrivals import GrowingSet, ShardFolder, ShardsMissing, WholeSet
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.shards import ShardInfo, SyntheticImages, encode_shard, shard_name

ROWS, KEY = 3, "k" * 64


def commit(folder: Location, shard: int, key: str = KEY) -> None:
    """Every pixel of a shard's images has its number."""
    info = ShardInfo(key, shard, 4, "t", [])
    images = np.full((ROWS, 1, 2, 2), shard, np.uint8)
    data = encode_shard(info, images, np.zeros(ROWS, int), np.zeros(ROWS, int), np.zeros((ROWS, 5), np.float32))
    (folder / shard_name(shard)).write_bytes(data)


@pytest.fixture
def folder(tmp_path):
    return Location.parse(tmp_path / "set").make_dir()


@pytest.fixture
def growing(folder, tmp_path):
    """Return a function that opens the set of four shards as a trial does, at its first start or again."""

    def open_set() -> GrowingSet:
        return GrowingSet(ShardFolder(folder, KEY, 4, ROWS), Location.parse(tmp_path / "shards.json"))

    return open_set


def numbers(images: SyntheticImages) -> list[int]:
    return images.images[:, 0, 0, 0].tolist()


def test_a_folder_knows_what_is_there_and_the_ids_of_what_is_not(folder):
    commit(folder, 2)
    commit(folder, 0)
    (folder / "quality.json").write_json({})
    (folder / ".shard-00001.parquet.1234.tmp").write_bytes(b"half")
    (folder / shard_name(4)).write_bytes(b"of a larger set")
    source = ShardFolder(folder, KEY, 4, ROWS)
    assert source.present() == [0, 2]
    images = source.load([2, 0])
    assert numbers(images) == [0, 0, 0, 2, 2, 2]
    assert source.ids.dtype == np.uint64
    assert source.ids.tolist() == [shard * 2**32 + row for shard in range(4) for row in range(3)]
    assert images.ids.tolist() == [*source.ids[:3].tolist(), *source.ids[6:9].tolist()]


def test_a_shard_of_other_settings_is_refused(folder):
    commit(folder, 1, key="x" * 64)
    with pytest.raises(ShardError, match="other settings"):
        ShardFolder(folder, KEY, 4, ROWS).load([1])


def test_each_epoch_takes_up_what_has_come_and_the_whole_is_in_order(folder, growing):
    commit(folder, 1)
    trial = growing()
    assert trial.of_epoch(0) == [1]
    commit(folder, 3)
    assert trial.of_epoch(0) == [1], "an epoch that was begun is not given more"
    assert trial.of_epoch(1) == [1, 3]
    assert numbers(trial.load([1, 3])) == [1, 1, 1, 3, 3, 3]
    with pytest.raises(ShardsMissing):
        trial.whole()
    for shard in (0, 2):
        commit(folder, shard)
    assert trial.of_epoch(2) == trial.of_epoch(7) == trial.whole() == [0, 1, 2, 3]
    assert numbers(trial.load(trial.whole())) == np.repeat(range(4), ROWS).tolist()
    assert trial.arrivals == [[1], [3], [0, 2]]


def test_a_trial_that_starts_again_is_given_the_same_shards(folder, growing):
    commit(folder, 0)
    first = growing()
    assert first.of_epoch(0) == [0]
    assert first.of_epoch(1) == [0]  # nothing new had come, and that is remembered
    for shard in (1, 2):
        commit(folder, shard)
    again = growing()
    assert again.of_epoch(0) == again.of_epoch(1) == [0]
    assert again.of_epoch(2) == [0, 1, 2]
    assert numbers(again.load([0, 1])) == [0, 0, 0, 1, 1, 1]


def test_what_a_trial_was_given_it_is_given_of_the_finished_set_too(folder, growing, tmp_path):
    commit(folder, 1)
    growing().of_epoch(0)
    for shard in (0, 2, 3):
        commit(folder, shard)
    whole = WholeSet(ShardFolder(folder, KEY, 4, ROWS).load(range(4)))
    trial = GrowingSet(whole, Location.parse(tmp_path / "shards.json"))
    assert numbers(trial.load(trial.of_epoch(0))) == [1, 1, 1]
    assert np.array_equal(trial.load(trial.of_epoch(1)).ids, whole.images.ids)
    fresh = GrowingSet(whole, Location.parse(tmp_path / "another.json"))
    assert fresh.load(fresh.of_epoch(0)) is whole.images, "shared memory is not copied"


def test_without_a_shard_nothing_begins_and_nothing_is_remembered(folder, growing):
    with pytest.raises(ShardsMissing):
        growing().of_epoch(0)
    commit(folder, 0)
    assert growing().of_epoch(0) == [0]


def test_a_shard_that_was_lost_since_is_waited_for(folder, growing):
    commit(folder, 0)
    growing().of_epoch(0)
    (folder / shard_name(0)).delete_file()
    trial = growing()
    with pytest.raises(ShardsMissing):
        trial.load(trial.of_epoch(0))


@pytest.mark.parametrize("content", [b"", b"null", b"{}", b'[["one"]]', b"[[-1]]", b"[[4]]", b"[[0], [0]]", b"[0]"])
def test_an_altered_record_of_arrivals_is_named_with_the_folder_to_delete(folder, growing, tmp_path, content):
    commit(folder, 0)
    (tmp_path / "shards.json").write_bytes(content)
    with pytest.raises(StorageError, match=r"shards\.json .*delete the folder") as error:
        growing()
    assert f"delete the folder {tmp_path} and run again" in str(error.value)
