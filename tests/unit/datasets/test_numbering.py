"""Which class a label is: a wrong number without a word is the worst fault there is."""

from __future__ import annotations

import json
from io import BytesIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import nn

from dfnas_ray.datasets.base import check_classes, open_dataset
from dfnas_ray.datasets.image_folder import ImageFolderConfig
from dfnas_ray.datasets.numbering import Numbering, better_numbering
from dfnas_ray.datasets.parquet import ParquetConfig
from dfnas_ray.errors import DatasetError
from dfnas_ray.teachers.base import freeze_teacher
from dfnas_ray.training.evaluation import evaluate_networks

CPU = torch.device("cpu")


class ByBrightness(nn.Module):
    """Says class k for an image of grey level 10 k."""

    def __init__(self, num_classes):
        super().__init__()
        self.register_buffer("levels", torch.arange(num_classes) * 10 / 255)

    def forward(self, x):
        return -(x.mean((1, 2, 3))[:, None] - self.levels).abs()


def teacher(num_classes):
    return freeze_teacher("brightness", ByBrightness(num_classes), (1, 4, 4), (0.0,), (1.0,))


def grey(level):
    return Image.new("L", (4, 4), level)


def folder(path, class_of_name, images=6):
    for name, number in class_of_name.items():
        (path / name).mkdir(parents=True)
        for index in range(images):
            grey(10 * number).save(path / name / f"{index}.png")
    return path


def accuracy(config, num_classes):
    dataset = open_dataset(config)
    return evaluate_networks({"teacher": teacher(num_classes).model}, teacher(num_classes), dataset, CPU)["teacher"]


@pytest.mark.parametrize(
    ("names", "num_classes"),
    [
        ([str(n) for n in range(11)], 11),
        ([f"{n:03d}" for n in range(11)], 11),
        ([str(n) for n in range(11) if n != 3], 11),
        ([str(n) for n in range(1, 12)], 11),
        (["ant", "bee", "cat"], 3),
    ],
    ids=["0 to 10", "000 to 010", "3 is missing", "1 to 11", "names"],
)
def test_folders_are_the_classes_that_people_mean(tmp_path, names, num_classes):
    first = 1 if names[0] == "1" else 0
    numbers = {name: int(name) - first if name.isdigit() else index for index, name in enumerate(names)}
    assert accuracy(ImageFolderConfig(kind="image_folder", path=folder(tmp_path, numbers)), num_classes) == 1.0


def test_a_class_without_a_folder_shifts_no_other_without_a_word(tmp_path):
    path = folder(tmp_path, {"ant": 0, "cat": 2})
    with pytest.raises(DatasetError, match=r"has 2 classes \(ant, cat\), and the teacher 3\. .* name all its classes"):
        accuracy(ImageFolderConfig(kind="image_folder", path=path), 3)
    assert accuracy(ImageFolderConfig(kind="image_folder", path=path, classes=("ant", "bee", "cat")), 3) == 1.0
    with pytest.raises(DatasetError, match="ant are none of the 2 classes that are given"):
        ImageFolderConfig(kind="image_folder", path=path, classes=("bee", "cat")).open()


def test_folders_from_1_on_with_one_missing_are_asked_about(tmp_path):
    path = folder(tmp_path, {"1": 0, "3": 2})
    with pytest.raises(DatasetError, match="has 2 classes"):
        accuracy(ImageFolderConfig(kind="image_folder", path=path), 3)


def test_splits_are_no_classes(tmp_path):
    for name in ("train", "val"):
        folder(tmp_path / name, {"ant": 0})
    with pytest.raises(DatasetError, match="has the sub-folders train, val, which are splits and not classes"):
        ImageFolderConfig(kind="image_folder", path=tmp_path).open()


def parquet(path, levels, labels, image="image", label="label", names=None):
    def png(level):
        buffer = BytesIO()
        grey(level).save(buffer, "PNG")
        return {"bytes": buffer.getvalue(), "path": None}

    table = pa.table({image: [png(level) for level in levels], label: labels})
    if names is not None:
        feature = {"names": names, "_type": "ClassLabel"}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": {label: feature}}})})
    pq.write_table(table, path)
    return path


def test_columns_of_parquet_can_be_named(tmp_path):
    path = parquet(tmp_path / "x.parquet", [0, 10, 20], [0, 1, 2], "img", "fine_label")
    config = ParquetConfig(kind="parquet", path=str(path), image_column="img", label_column="fine_label")
    assert accuracy(config, 3) == 1.0


def test_files_of_several_splits_are_not_read_as_one_set(tmp_path):
    (tmp_path / "data").mkdir()
    parquet(tmp_path / "data" / "train-00000-of-00001.parquet", [20, 20], [0, 0])
    parquet(tmp_path / "data" / "test-00000-of-00001.parquet", [0, 10], [0, 1])
    for split in (None, "validation"):
        config = ParquetConfig(kind="parquet", path=str(tmp_path / "data"), split=split)
        with pytest.raises(DatasetError, match=r"these splits: test \(1\), train \(1\)\. Choose one with split"):
            config.open()
    assert accuracy(ParquetConfig(kind="parquet", path=str(tmp_path / "data"), split="test"), 3) == 1.0


def test_a_folder_whose_own_path_names_a_split_is_one_set(tmp_path):
    (tmp_path / "train").mkdir()
    for part in range(2):
        parquet(tmp_path / "train" / f"{part}.parquet", [0, 10], [0, 1])
    assert len(ParquetConfig(kind="parquet", path=str(tmp_path / "train")).open()) == 4


def test_names_in_the_file_are_compared_and_can_be_put_in_the_teachers_order(tmp_path):
    path = parquet(tmp_path / "x.parquet", [0, 10, 20], [2, 0, 1], names=["bee", "cat", "ant"])
    with pytest.raises(DatasetError, match=r"has 3 classes \(bee, cat, ant\), and the teacher 4"):
        accuracy(ParquetConfig(kind="parquet", path=str(path)), 4)
    assert accuracy(ParquetConfig(kind="parquet", path=str(path)), 3) == 0.0
    assert accuracy(ParquetConfig(kind="parquet", path=str(path), classes=("ant", "bee", "cat")), 3) == 1.0
    with pytest.raises(DatasetError, match=r"ant of Parquet dataset .* are none of the 2 classes"):
        ParquetConfig(kind="parquet", path=str(path), classes=("bee", "cat")).open()


@pytest.mark.parametrize("metadata", [b"", b"5", b"[" * 5000, b'{"info": {"features": {"label": {"names": [1, 1]}}}}'])
def test_metadata_that_makes_no_sense_is_left_alone(tmp_path, metadata):
    path = parquet(tmp_path / "x.parquet", [0, 10], [0, 1])
    pq.write_table(pq.read_table(path).replace_schema_metadata({"huggingface": metadata}), path)
    assert accuracy(ParquetConfig(kind="parquet", path=str(path)), 3) == 1.0


def test_an_evaluation_says_when_another_numbering_would_be_far_better(tmp_path, caplog):
    names = {"one": 1, "three": 3, "two": 2, "zero": 0}  # alphabetical: 0 is "one"
    assert accuracy(ImageFolderConfig(kind="image_folder", path=folder(tmp_path, names)), 4) < 0.3
    assert "right on 25% of the images, and would be on 100% if the labels were numbered otherwise" in caplog.text
    assert "label 0 (one) as class 1" in caplog.text


def test_a_bad_network_and_a_good_one_are_not_told_to_be_numbered_otherwise():
    rng = np.random.default_rng(0)
    assert better_numbering(rng.integers(0, 20, (10, 10)), None) is None
    assert better_numbering(np.eye(10, dtype=int) * 50 + 1, None) is None
    assert better_numbering(np.roll(np.eye(10, dtype=int), 1, 1), None) is None  # one image of each class
    assert better_numbering(np.zeros((3000, 3000), dtype=int), None) is None


def test_classes_of_21000_are_compared_in_a_moment():
    numbering = Numbering(tuple(map(str, range(21_000))))
    numbering.check(21_000, "evaluation.dataset", "it")
    with pytest.raises(DatasetError, match=r"it has 21,000 classes \(0, 1, 2, 3, 4, \.\.\. 20999\)"):
        numbering.check(1000, "evaluation.dataset", "it")


def test_a_dataset_that_says_nothing_of_its_labels_is_taken():
    check_classes([], 10)  # type: ignore[arg-type]
