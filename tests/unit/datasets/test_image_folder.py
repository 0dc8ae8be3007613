"""A folder of images per class."""

import shutil

import pytest
from PIL import Image
from pydantic import TypeAdapter

from dfnas_ray.datasets import DatasetConfig
from dfnas_ray.datasets.base import iterate_batches
from dfnas_ray.errors import DatasetError


def open_folder(path):
    return TypeAdapter(DatasetConfig).validate_python({"kind": "image_folder", "path": str(path)}).open()


@pytest.fixture
def folder(tmp_path):
    """Classes b (one image), a (two) and a file that is no image."""
    for name, values in {"b": [30], "a": [10, 20]}.items():
        (tmp_path / name).mkdir()
        for index, value in enumerate(values):
            Image.new("L", (4, 4), value).save(tmp_path / name / f"{index}.png")
    (tmp_path / "a" / "notes.txt").write_text("not an image")
    return tmp_path


def test_classes_are_numbered_alphabetically_and_other_files_ignored(folder):
    dataset = open_folder(folder)
    assert len(dataset) == 3
    images, labels = next(iterate_batches(dataset, (1, 4, 4), num_classes=2))
    assert images[:, 0, 0, 0].tolist() == [10, 20, 30]
    assert labels.tolist() == [0, 0, 1]


def test_other_images_are_another_set_and_another_place_is_not(folder, tmp_path_factory):
    here = open_folder(folder).fingerprint
    there = shutil.copytree(folder, tmp_path_factory.mktemp("other") / "place")
    assert open_folder(there).fingerprint == here
    Image.new("L", (40, 40), 7).save(there / "b" / "0.png")
    other = open_folder(there).fingerprint
    assert other != here
    (there / "a" / "0.png").rename(there / "b" / "1.png")
    assert open_folder(there).fingerprint not in (here, other)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"evaluation\.dataset\.path \(.*nowhere\) does not exist\. .*sub-folder"):
        open_folder(tmp_path / "nowhere")


def test_a_file_in_place_of_the_folder_is_refused(folder):
    with pytest.raises(DatasetError, match=r"evaluation\.dataset\.path \(.*0\.png\) is a file, not a folder"):
        open_folder(folder / "a" / "0.png")


def test_a_folder_without_class_folders_is_refused(tmp_path):
    with pytest.raises(
        DatasetError, match=rf"evaluation\.dataset\.path \({tmp_path}\) .*one sub-folder of images per class"
    ):
        open_folder(tmp_path)


def test_a_class_without_images_is_refused_by_name(folder):
    (folder / "c").mkdir()
    with pytest.raises(DatasetError, match=r"evaluation\.dataset\.path .*\bclasses c\."):
        open_folder(folder)


def test_a_damaged_file_is_named_by_its_index(folder):
    whole = (folder / "a" / "1.png").read_bytes()
    (folder / "a" / "1.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match=r"evaluation\.dataset: image folder .*, image 1 cannot be read"):
        list(iterate_batches(open_folder(folder), (1, 4, 4), num_classes=2))
