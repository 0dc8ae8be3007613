"""Names of classes: the same names in another order are an accuracy of nothing, and must not pass."""

from __future__ import annotations

import json
from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image
from torch import nn

import dfnas_ray
from dfnas_ray.config.experiment import make_experiment
from dfnas_ray.datasets.class_order import compare_names
from dfnas_ray.datasets.image_folder import ImageFolderConfig
from dfnas_ray.datasets.numbering import Numbering
from dfnas_ray.datasets.parquet import ParquetConfig
from dfnas_ray.datasets.torchvision_datasets import _Torchvision
from dfnas_ray.errors import DatasetError
from dfnas_ray.sources.base import SetSize
from dfnas_ray.sources.real import RealSource
from dfnas_ray.teachers.base import Teacher
from dfnas_ray.training.evaluation import decode_all, evaluate_networks
from dfnas_ray.workflow.session import Session
from dfnas_ray.workflow.sweep import Sweep

CPU = torch.device("cpu")
NAMES = ("plane", "car", "bird", "cat")  # alphabetical: bird, car, cat, plane


class ByBrightness(nn.Module):
    """Says class k for an image of grey level 10 k."""

    def __init__(self):
        super().__init__()
        self.register_buffer("levels", torch.arange(4) * 10 / 255)

    def forward(self, x):
        return -(x.mean((1, 2, 3))[:, None] - self.levels).abs()


@pytest.fixture(scope="module")
def teacher():
    return Teacher.from_model(ByBrightness(), (1, 4, 4), (0.0,), (1.0,), class_names=NAMES)


def picture(name):
    return Image.new("L", (4, 4), 10 * NAMES.index(name.lower().strip("_")))


@pytest.fixture
def folder(tmp_path):
    def make(*names):
        for name in names:
            (tmp_path / name).mkdir()
            picture(name).save(tmp_path / name / "0.png")
        return tmp_path

    return make


def accuracy(teacher, config):
    return evaluate_networks({"it": teacher.model}, teacher, config.open(), CPU)["it"]


def line_of(error):
    """The settings that an error says to write."""
    return yaml.safe_load(str(error.value).splitlines()[-1])


def test_folders_in_another_order_are_an_error_whose_line_is_the_remedy(teacher, folder):
    path = folder("Plane", "car_", "bird", "CAT")
    with pytest.raises(
        DatasetError, match="same classes in another order: class 0 is CAT there, and plane for"
    ) as error:
        accuracy(teacher, ImageFolderConfig(kind="image_folder", path=path))
    assert line_of(error) == {"classes": ["Plane", "car_", "bird", "CAT"]}
    assert accuracy(teacher, ImageFolderConfig(kind="image_folder", path=path, **line_of(error))) == 1.0


def test_names_of_hugging_face_in_another_order_are_an_error_whose_line_is_the_remedy(teacher, tmp_path):
    names, rows = ["cat", "plane", "car", "bird"], []
    for name in names:
        buffer = BytesIO()
        picture(name).save(buffer, "PNG")
        rows.append({"bytes": buffer.getvalue(), "path": None})
    feature = {"names": names, "_type": "ClassLabel"}
    metadata = {"huggingface": json.dumps({"info": {"features": {"label": feature}}})}
    table = pa.table({"image": rows, "label": [0, 1, 2, 3]}).replace_schema_metadata(metadata)
    pq.write_table(table, tmp_path / "x.parquet")
    path = str(tmp_path / "x.parquet")
    with pytest.raises(DatasetError, match="same classes in another order") as error:
        accuracy(teacher, ParquetConfig(kind="parquet", path=path))
    assert accuracy(teacher, ParquetConfig(kind="parquet", path=path, **line_of(error))) == 1.0


def test_every_way_to_real_images_compares_the_names(teacher, folder):
    path = folder(*NAMES)
    settings = {"kind": "image_folder", "path": str(path)}
    with pytest.raises(DatasetError, match="same classes in another order"):
        dfnas_ray.evaluate(teacher, teacher.model, settings)
    with pytest.raises(DatasetError, match="same classes in another order"):
        decode_all(ImageFolderConfig(**settings).open(), teacher)
    size = SetSize(images=4, rows=4, canvas=(1, 4, 4))
    with pytest.raises(
        DatasetError, match=r"^search\.images\.dataset: .* another order.*in search\.images\.dataset, or"
    ):
        RealSource(dataset=settings).drawer(teacher, size, 0, "search.images")
    RealSource(dataset=settings, labels="teacher").drawer(teacher, size, 0, "search.images")


def test_a_sweep_compares_the_names_before_its_first_trial(teacher, folder, tiny_values, tmp_path):
    labelled = {"kind": "image_folder", "path": str(folder(*NAMES))}
    sweep = {"settings": {"synthesis.method.tau": {"uniform": [0.5, 2]}}, "labelled": labelled}
    sweep["objectives"] = ["labelled_accuracy"]
    config = make_experiment({**tiny_values(), "run_dir": str(tmp_path / "run"), "sweep": sweep})
    with pytest.raises(DatasetError, match=r"^sweep\.labelled: .*another order"):
        Sweep(Session(config, teacher=teacher)).check()


def compare(theirs, ours, **settings):
    compare_names(Numbering(tuple(theirs), **settings), ours, "here", "it")


def test_names_are_compared_without_case_blanks_and_synonyms():
    compare(["Ice_cream", "hot dog, red hot", "T-shirt"], ["ice cream", "hotdog", "tshirt"])
    with pytest.raises(DatasetError, match="in another order") as error:
        compare(["Hot-Dog", "no", "a: b"], ["a:b", "hot dog, red hot", "NO"])
    assert line_of(error) == {"classes": ["a: b", "Hot-Dog", "no"]}


def test_a_line_too_long_for_an_error_is_described():
    names = [f"a class with a long name, number {number:03d}" for number in range(100)]
    names = [name.replace(", number", "") for name in names]
    with pytest.raises(DatasetError, match=r"for the teacher\. Give the teacher's order in here\.classes, or correct"):
        compare(names, names[::-1])


def test_names_that_agree_in_part_are_an_error_if_most_have_other_numbers():
    message = r"has the classes ant, bee, cat, dog, and the teacher bee, cat, owl, ant\. 3 of the 3 names .* such as ant: 0 in"
    with pytest.raises(DatasetError, match=message):
        compare(["ant", "bee", "cat", "dog"], ["bee", "cat", "owl", "ant"])
    compare(["ant", "bee", "cat", "dog"], ["bee", "cat", "owl", "ant"], is_given=True)
    with pytest.raises(DatasetError, match=r"Correct here\.classes or teacher\.class_names"):
        compare(["ant", "bee"], ["bee", "ant"], is_given=True)


def test_what_may_be_right_is_a_remark_said_once(caplog):
    compare(["automobile", "bird", "cat"], ["car", "bird", "cat"])
    assert caplog.text == ""
    compare(["ant", "bee", "cat", "dog"], ["ant", "bee", "dog", "owl"])
    assert (
        "1 of the 3 names in both lists have other numbers there, such as dog: 3 in the dataset, 2 for" in caplog.text
    )
    caplog.clear()
    for _ in range(2):
        compare(["n01440764", "n01443537"], ["tench", "goldfish"])
    assert caplog.text.count("No name is in both lists") == 1


def test_two_classes_of_one_name_and_names_that_are_numbers_are_not_compared(caplog):
    compare(["crane", "tench", "crane"], ["crane", "tench", "crane"])
    compare(["crane", "tench", "crane bird"], ["crane", "tench", "crane"])
    compare(["0", "1"], ["1", "0"], by="number")
    assert caplog.text == ""


def test_names_of_imagenet_in_torchvision_are_those_of_a_published_teacher():
    class Fake:
        classes = (("goldfish", "Carassius auratus"), ("tench", "Tinca tinca"))

    dataset = _Torchvision(Fake(), "ImageNet")
    assert dataset.numbering.names == ("goldfish, Carassius auratus", "tench, Tinca tinca")
    with pytest.raises(DatasetError, match="in another order"):
        compare(dataset.numbering.names, ["tench", "goldfish"])
