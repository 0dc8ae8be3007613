"""torchvision's datasets by name. No file is needed: a stand-in of a published class takes its place."""

import pytest
import torchvision.datasets
from PIL import Image
from pydantic import TypeAdapter

from dfnas_ray.datasets import DatasetConfig
from dfnas_ray.datasets.base import iterate_batches
from dfnas_ray.errors import DatasetError


def config(name, root="nowhere", **arguments):
    values = {"kind": "torchvision", "name": name, "root": str(root), "arguments": arguments}
    return TypeAdapter(DatasetConfig).validate_python(values)


@pytest.fixture
def calls(monkeypatch):
    """Replace CIFAR10 by a class of two images; return what it was constructed with."""
    received = []

    class TwoImages:
        def __init__(self, root, train=True):
            received.append({"root": root, "train": train})

        def __len__(self):
            return 2

        def __getitem__(self, index):
            return Image.new("RGB", (4, 4), (index, 0, 255)), index

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", TwoImages)
    return received


def test_a_dataset_is_constructed_by_name_with_root_and_arguments(calls, tmp_path):
    dataset = config("CIFAR10", tmp_path, train=False).open()
    assert calls == [{"root": str(tmp_path), "train": False}]
    assert calls[0]["train"] is False  # not the integer 0
    images, labels = next(iterate_batches(dataset, (3, 4, 4), num_classes=2))
    assert images[1, :, 0, 0].tolist() == [1, 0, 255]
    assert labels.tolist() == [0, 1]


def test_arguments_that_the_dataset_does_not_take_are_named(calls):
    with pytest.raises(
        DatasetError, match=r"evaluation\.dataset\.arguments \(\{'split': 'val'\}\) do not fit .*CIFAR10"
    ):
        config("CIFAR10", split="val").open()


@pytest.mark.parametrize("name", ["CIFAR11", "_optical_flow", "utils", "__name__"])
def test_a_name_that_is_no_dataset_is_refused(name):
    with pytest.raises(DatasetError, match=rf"evaluation\.dataset\.name \({name}\) is not in torchvision"):
        config(name).open()


def test_a_misspelt_name_gets_its_nearest_neighbour():
    with pytest.raises(DatasetError, match=r"Did you mean Flowers102\?"):
        config("Flowers12").open()


def test_a_value_that_the_dataset_does_not_know_is_named_as_an_argument(tmp_path):
    with pytest.raises(DatasetError, match=r"evaluation\.dataset\.arguments \(\{'split': 'vall'\}\).*'vall'"):
        config("Flowers102", tmp_path, split="vall").open()


def test_files_that_are_not_there_are_named_with_the_way_to_get_them(tmp_path):
    with pytest.raises(DatasetError, match=rf"MNIST .*evaluation\.dataset\.root \({tmp_path}\)") as raised:
        config("MNIST", tmp_path, train=False).open()
    assert "evaluation.dataset.arguments.download=true" in str(raised.value)
