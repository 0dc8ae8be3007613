import errno
import os

import numpy as np
import pytest

from dfnas_ray.errors import ShardError, StorageError
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.run_dir import RunDir
from dfnas_ray.storage.shards import ShardInfo, decode_shard, encode_shard
from dfnas_ray.training.batches import validation_mask

INFO = ShardInfo(key="k" * 64, shard=2, num_shards=3, teacher="t", curves=[])


def encoded(channels=1, info=INFO):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, channels, 10, 12), dtype=np.uint8)
    logits = rng.normal(size=(6, 4)).astype(np.float32)
    return images, logits, bytes(encode_shard(info, images, np.arange(6) % 4, np.arange(6) // 3, logits))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_shard_reads_back_what_was_written(channels):
    images, logits, data = encoded(channels)
    info, read = decode_shard(data, INFO.key, "here")
    assert info == INFO
    np.testing.assert_array_equal(read.images, images)
    np.testing.assert_array_equal(read.logits, logits)
    assert read.ids.tolist() == [2 * 2**32 + row for row in range(6)]
    assert encoded(channels)[2] == data  # the same bytes again


@pytest.mark.parametrize("damage", [lambda d: d[: len(d) // 2], lambda d: b"", lambda d: b"PAR1 nothing PAR1"])
def test_a_truncated_or_foreign_file_is_named(damage):
    with pytest.raises(ShardError, match=r"shard-7.*again replaces it"):
        decode_shard(damage(encoded()[2]), INFO.key, "shard-7")


def test_a_shard_of_other_settings_is_refused():
    with pytest.raises(ShardError, match="other settings"):
        decode_shard(encoded()[2], "another", "shard-7")


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    location = Location.parse(tmp_path / "file")
    location.write_bytes(b"old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"disk is full.*run the same command again"):
        location.write_bytes(b"new")
    assert location.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208 - hidden files, too


def test_a_run_directory_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="run_dir"), RunDir(tmp_path / "file" / "run").locked():
        pass


def test_a_second_command_in_the_same_directory_is_refused(tmp_path):
    with RunDir(tmp_path).locked(), pytest.raises(StorageError, match="Another command"), RunDir(tmp_path).locked():
        pass


def test_a_stage_is_keyed_by_its_inputs_and_says_what_changed(tmp_path):
    run = RunDir(tmp_path)
    first = run.stage("search", {"seed": 0, "search": {"epochs": 2}})
    first.begin()
    run.set_latest(first)
    assert first.is_started
    assert not first.is_done
    first.finish({"x": 1})
    assert run.stage("search", {"search": {"epochs": 2}, "seed": 0}).is_done
    changed = run.stage("search", {"seed": 0, "search": {"epochs": 3}})
    assert not changed.is_done
    assert changed.changes() == ["search.epochs: 2 -> 3"]


def test_an_image_keeps_its_side_when_more_images_come():
    ids = np.arange(20_000, dtype=np.uint64)
    mask = validation_mask(ids, 0.2, seed=3)
    np.testing.assert_array_equal(validation_mask(ids[500:900], 0.2, seed=3), mask[500:900])
    assert mask.mean() == pytest.approx(0.2, abs=0.01)
    assert (validation_mask(ids, 0.2, seed=4) != mask).any()
