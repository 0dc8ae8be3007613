"""Shards as files: what is refused, and how the refusal is worded."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dfnas_ray.errors import ShardError, StorageError
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.manifest import Manifest
from dfnas_ray.storage.shard_sets import load_shards
from dfnas_ray.storage.shards import (
    ROW_GROUP_SIZE,
    ShardInfo,
    SyntheticImages,
    decode_shard,
    encode_shard,
    manifest_entry,
    read_info,
    shard_name,
    verify_entry,
)

KEY = "a" * 64


def make_shard(shard=0, rows=8, channels=1, seed=0, key=KEY):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (rows, channels, 9, 7), dtype=np.uint8)
    logits = rng.normal(size=(rows, 5)).astype(np.float32)
    curves = [[{"step": 1, "losses": {"class": 0.5}}]]
    info = ShardInfo(key=key, shard=shard, num_shards=3, teacher="teacher", curves=curves)
    return bytes(encode_shard(info, images, np.arange(rows) % 5, np.arange(rows) % 2, logits)), images, logits


def store(folder, *shards):
    location = Location.parse(folder)
    entries = []
    for shard in shards:
        data, images, _ = make_shard(shard, seed=shard)
        (location / shard_name(shard)).write_bytes(data)
        entries.append(manifest_entry(shard, data, len(images)))
    return location, Manifest(key=KEY, shards=tuple(entries))


def test_a_shard_has_the_same_bytes_whenever_it_is_made():
    assert make_shard(shard=2)[0] == make_shard(shard=2)[0]


def test_a_shard_says_what_it_belongs_to_from_its_footer_alone(tmp_path):
    data = bytearray(make_shard(shard=2)[0])
    data[4:200] = bytes(196)  # the first images, after the four bytes that every Parquet file begins with
    (Location.parse(tmp_path) / "x").write_bytes(bytes(data))
    curves = [[{"step": 1, "losses": {"class": 0.5}}]]
    expected = ShardInfo(key=KEY, shard=2, num_shards=3, teacher="teacher", curves=curves)
    assert read_info(Location.parse(tmp_path) / "x") == expected
    assert decode_shard(make_shard(shard=2)[0], KEY, "here")[0] == expected


def test_a_footer_that_cannot_be_read_names_the_shard(tmp_path, monkeypatch):
    file = Location.parse(tmp_path) / "shard-7"
    with pytest.raises(ShardError, match=rf"{file.path} is missing\. .*again replaces it"):
        read_info(file)
    file.write_bytes(make_shard()[0][:-50])
    with pytest.raises(ShardError, match=rf"{file.path} is truncated .*again replaces it"):
        read_info(file)
    pq.write_table(pa.table({"label": [0]}), file.path)
    with pytest.raises(ShardError, match=rf"{file.path} is truncated or is not a shard of this product"):
        read_info(file)
    monkeypatch.setattr("dfnas_ray.storage.shards.FORMAT", 2)
    file.write_bytes(make_shard()[0])
    monkeypatch.undo()
    with pytest.raises(ShardError, match=rf"{file.path} has another format than 1"):
        read_info(file)


def test_a_shard_of_several_row_groups_reads_back_whole():
    rows = ROW_GROUP_SIZE + 3
    data, images, logits = make_shard(rows=rows)
    assert pq.ParquetFile(pa.BufferReader(data)).num_row_groups == 2
    _, read = decode_shard(data, KEY, "here")
    np.testing.assert_array_equal(read.images, images)
    np.testing.assert_array_equal(read.logits, logits)
    np.testing.assert_array_equal(read.labels, np.arange(rows) % 5)
    np.testing.assert_array_equal(read.rounds, np.arange(rows) % 2)


@pytest.mark.parametrize("channels", [1, 3])
def test_columns_and_types_are_those_that_other_tools_expect(channels):
    data, images, _ = make_shard(channels=channels)
    table = pq.read_table(pa.BufferReader(data))
    assert table.column_names == ["image", "label", "round", "logits"]
    assert table.schema.field("logits").type == pa.list_(pa.float32(), 5)
    picture = Image.open(io.BytesIO(table["image"][0].as_py()["bytes"]))
    assert (picture.format, picture.mode) == ("PNG", "L" if channels == 1 else "RGB")
    expected = images[0, 0] if channels == 1 else images[0].transpose(1, 2, 0)
    np.testing.assert_array_equal(np.asarray(picture), expected)
    assert b"huggingface" in table.schema.metadata


def test_images_of_two_channels_are_refused():
    with pytest.raises(StorageError, match="1 or 3 channels, not 2"):
        make_shard(channels=2)


def test_a_parquet_file_of_another_tool_is_refused():
    buffer = io.BytesIO()
    pq.write_table(pa.table({"image": [1, 2], "label": [0, 1]}), buffer)
    with pytest.raises(ShardError, match=r"there\.parquet .*Running the same command again replaces it"):
        decode_shard(buffer.getvalue(), KEY, "there.parquet")


def test_bytes_that_only_look_like_parquet_are_refused():
    with pytest.raises(ShardError, match=r"there\.parquet .*again replaces it"):
        decode_shard(b"PAR1 nothing PAR1", KEY, "there.parquet")


def test_every_truncation_is_refused():
    data = make_shard()[0]
    for length in range(0, len(data), 97):
        with pytest.raises(ShardError, match=r"there\.parquet .*again replaces it"):
            decode_shard(data[:length], KEY, "there.parquet")


def test_a_shard_of_another_format_is_refused(monkeypatch):
    monkeypatch.setattr("dfnas_ray.storage.shards.FORMAT", 2)
    data = make_shard()[0]
    monkeypatch.undo()
    with pytest.raises(ShardError, match=r"there has another format than 1\..*again replaces it"):
        decode_shard(data, KEY, "there")


def test_a_shard_of_another_key_is_refused_with_both_keys():
    data = make_shard(key="b" * 64)[0]
    with pytest.raises(ShardError, match=r"there was made with other settings \(b{12}, not a{12}\).*again replaces it"):
        decode_shard(data, KEY, "there")


def test_any_altered_byte_is_refused_by_the_manifest(tmp_path):
    folder, manifest = store(tmp_path, 0)
    file = folder / shard_name(0)
    data = file.read_bytes()
    rng = np.random.default_rng(1)
    for position in rng.choice(len(data), 300, replace=False):
        altered = bytearray(data)
        altered[position] ^= int(rng.integers(1, 256))
        file.write_bytes(bytes(altered))
        with pytest.raises(ShardError, match=rf"{file.path} .*again replaces it"):
            load_shards(folder, manifest)


def test_bytes_are_compared_with_the_manifest_before_anything_is_decoded(tmp_path, monkeypatch):
    folder, manifest = store(tmp_path, 0)
    monkeypatch.setattr("dfnas_ray.storage.shards.decode_shard", lambda *_: pytest.fail("decoded"))
    (folder / shard_name(0)).write_bytes(b"another file")
    with pytest.raises(ShardError, match=rf"{shard_name(0)} has changed since it was made\..*again replaces it"):
        load_shards(folder, manifest)


def test_verify_entry_accepts_the_bytes_that_were_committed_alone():
    data = make_shard()[0]
    entry = manifest_entry(0, data, 8)
    verify_entry(data, entry, "here")
    with pytest.raises(ShardError, match="Shard here has changed"):
        verify_entry(data + b"x", entry, "here")


def test_a_shard_with_columns_of_another_type_is_refused():
    table = pq.read_table(pa.BufferReader(make_shard()[0]))
    for name, values in (("label", ["x"] * 8), ("round", [0.5] * 8), ("logits", [1] * 8), ("image", [1] * 8)):
        buffer = io.BytesIO()
        pq.write_table(table.set_column(table.column_names.index(name), name, pa.array(values)), buffer)
        with pytest.raises(ShardError, match=r"Shard here .*again replaces it"):
            decode_shard(buffer.getvalue(), KEY, "here")


def test_a_missing_shard_is_named(tmp_path):
    folder, manifest = store(tmp_path, 0, 1)
    (folder / shard_name(1)).delete_file()
    with pytest.raises(ShardError, match=rf"{shard_name(1)} is missing.*again replaces it"):
        load_shards(folder, manifest)


def test_a_good_shard_under_the_name_of_another_is_refused(tmp_path):
    folder, manifest = store(tmp_path, 0, 1)
    (folder / shard_name(1)).write_bytes((folder / shard_name(0)).read_bytes())
    with pytest.raises(ShardError, match=shard_name(1)):
        load_shards(folder, manifest)


def test_ids_do_not_depend_on_which_shards_are_loaded(tmp_path):
    folder, manifest = store(tmp_path, 0, 1, 2)
    everything = load_shards(folder, manifest)
    alone = load_shards(folder, manifest.model_copy(update={"shards": manifest.shards[2:]}))
    assert len(everything) == 24
    assert len(set(everything.ids.tolist())) == 24
    assert alone.ids.tolist() == [2 * 2**32 + row for row in range(8)]
    same = everything.select(np.isin(everything.ids, alone.ids))
    np.testing.assert_array_equal(same.images, alone.images)
    np.testing.assert_array_equal(same.logits, alone.logits)


def test_rows_are_selected_by_mask_and_by_index():
    _, read = decode_shard(make_shard()[0], KEY, "here")
    mask = np.arange(8) % 3 == 0
    for index in (mask, np.array([0, 3, 6])):
        part = read.select(index)
        assert part.ids.tolist() == [0, 3, 6]
        np.testing.assert_array_equal(part.images, read.images[[0, 3, 6]])
    again = SyntheticImages.concatenate([read.select(~mask), read.select(mask)])
    assert again.ids.tolist() == [1, 2, 4, 5, 7, 0, 3, 6]
