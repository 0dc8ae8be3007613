"""Parquet files in the usual image layout."""

from io import BytesIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydantic import TypeAdapter

from dfnas_ray.datasets import DatasetConfig
from dfnas_ray.datasets.base import iterate_batches
from dfnas_ray.errors import DatasetError


def open_parquet(path):
    return TypeAdapter(DatasetConfig).validate_python({"kind": "parquet", "path": str(path)}).open()


def encoded(value, kind="PNG"):
    buffer = BytesIO()
    Image.new("L", (4, 4), value).save(buffer, kind)
    return buffer.getvalue()


def write(path, images, labels, row_group_size=None):
    image_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": image, "path": None} for image in images]
    table = pa.table({"image": pa.array(rows, image_type), "label": pa.array(labels, pa.int64())})
    pq.write_table(table, path, row_group_size=row_group_size)
    return path


def test_a_file_gives_its_images_and_labels_in_order(tmp_path):
    path = write(tmp_path / "x.parquet", [encoded(10), encoded(20), encoded(30)], [2, 0, 1], row_group_size=1)
    dataset = open_parquet(path)
    assert len(dataset) == 3
    images, labels = next(iterate_batches(dataset, (1, 4, 4), num_classes=3))
    assert images[:, 0, 0, 0].tolist() == [10, 20, 30]
    assert labels.tolist() == [2, 0, 1]


def test_a_folder_of_files_is_one_dataset(tmp_path):
    write(tmp_path / "0.parquet", [encoded(10)], [0])
    write(tmp_path / "1.parquet", [encoded(20), encoded(30)], [1, 2])
    dataset = open_parquet(tmp_path)
    assert [dataset[index][1] for index in range(len(dataset))] == [0, 1, 2]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"evaluation\.dataset\.path \(.*none\.parquet\) does not exist\. .*label"):
        open_parquet(tmp_path / "none.parquet")


def test_a_folder_without_parquet_files_is_named(tmp_path):
    with pytest.raises(DatasetError, match=rf"evaluation\.dataset\.path \({tmp_path}\) holds no Parquet file"):
        open_parquet(tmp_path)


def test_a_folder_with_a_file_of_another_format_is_named(tmp_path):
    write(tmp_path / "0.parquet", [encoded(10)], [0])
    (tmp_path / "1.parquet").write_bytes(b"this is not Parquet")
    with pytest.raises(DatasetError, match=rf"evaluation\.dataset\.path \({tmp_path}\) cannot be read"):
        open_parquet(tmp_path)


def test_a_file_of_another_format_is_named(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"this is not Parquet")
    with pytest.raises(
        DatasetError, match=r"evaluation\.dataset\.path \(.*x\.parquet\) cannot be read: .*must be a Parquet file"
    ):
        open_parquet(tmp_path / "x.parquet")


@pytest.mark.parametrize(
    ("columns", "lacking"),
    [
        ({"img": ["a"], "label": [0]}, r"no column image: struct<bytes, path>; its columns are img, label"),
        ({"image": ["raw"], "label": [0]}, "no column image: struct"),
        ({"image": [{"path": "a.png"}], "label": [0]}, "no column image: struct"),
        (
            {"image": [{"bytes": b"", "path": "a"}], "fine_label": [0]},
            "no column label of numbers or names; .*fine_label",
        ),
        ({"image": [{"bytes": b"", "path": "a"}], "label": [[1, 0]]}, "no column label of numbers or names"),
    ],
)
def test_a_file_without_the_columns_names_those_it_has(tmp_path, columns, lacking):
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    with pytest.raises(DatasetError, match=rf"evaluation\.dataset\.path \(.*x\.parquet\) has {lacking}"):
        open_parquet(tmp_path / "x.parquet")


def test_bytes_that_are_no_image_are_named_by_their_index(tmp_path):
    path = write(tmp_path / "x.parquet", [encoded(10), b"no image"], [0, 0])
    with pytest.raises(DatasetError, match=r"x\.parquet, image 1 cannot be read"):
        list(iterate_batches(open_parquet(path), (1, 4, 4), num_classes=3))


def test_an_image_that_is_cut_off_is_named_by_its_index(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    buffer = BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG")
    path = write(tmp_path / "x.parquet", [encoded(10), buffer.getvalue()[: buffer.tell() // 2]], [0, 0])
    with pytest.raises(DatasetError, match=r"x\.parquet, image 1 cannot be read"):
        list(iterate_batches(open_parquet(path), (1, 4, 4), num_classes=3))


def test_a_row_without_bytes_is_named_by_its_index(tmp_path):
    path = write(tmp_path / "x.parquet", [encoded(10), None], [0, 0])
    with pytest.raises(DatasetError, match=r"x\.parquet, image 1 cannot be read"):
        list(iterate_batches(open_parquet(path), (1, 4, 4), num_classes=3))


def test_other_labels_or_other_images_are_another_set_and_another_place_is_not(tmp_path):
    def fingerprint(folder, images, labels):
        (tmp_path / folder).mkdir()
        return open_parquet(write(tmp_path / folder / "x.parquet", images, labels)).fingerprint

    images = [encoded(10), encoded(20)]
    here = fingerprint("here", images, [0, 1])
    assert fingerprint("there", images, [0, 1]) == here
    assert fingerprint("relabelled", images, [1, 0]) != here
    assert fingerprint("as-jpeg", [encoded(10, "JPEG"), encoded(20, "JPEG")], [0, 1]) != here


def with_stated_rows(file, rows):
    """Return the bytes of a file of three rows whose footer states another number of them."""
    data = bytearray(file.read_bytes())
    for place in range(len(data) - 8 - int.from_bytes(data[-8:-4], "little"), len(data) - 8):
        changed = bytearray(data)
        if data[place] != 6:  # three as Thrift writes it: zigzag
            continue
        changed[place] = 2 * rows if rows >= 0 else -2 * rows - 1
        try:
            if pq.read_metadata(BytesIO(changed)).num_rows == rows:
                return bytes(changed)
        except (OSError, pa.ArrowException):
            continue
    raise AssertionError("the footer has no such place")


@pytest.mark.parametrize("rows", [-3, 4, 2])
def test_a_file_that_states_other_rows_than_it_has_is_refused(tmp_path, rows):
    path = write(tmp_path / "x.parquet", [encoded(10), encoded(20), encoded(30)], [0, 1, 2])
    path.write_bytes(with_stated_rows(path, rows))
    with pytest.raises(DatasetError, match=f"it states {rows} rows"):
        list(iterate_batches(open_parquet(path), (1, 4, 4), num_classes=3))
