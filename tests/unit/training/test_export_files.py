"""A trained network's files that were truncated or altered: an error that names the file, never a traceback."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save

from dfnas_ray.errors import StorageError
from dfnas_ray.search_spaces import NASBenchMacroConfig
from dfnas_ray.search_spaces.architecture import Architecture
from dfnas_ray.storage.location import Location
from dfnas_ray.teachers.base import freeze_teacher
from dfnas_ray.teachers.digits import DigitsCNN
from dfnas_ray.training.export import History, NetworkDescription, check_network, load_network

CONFIG = NASBenchMacroConfig(stem_channels=4, stage_layers=(1, 1), stage_channels=(8, 16), head_channels=16)


@pytest.fixture
def folder(tmp_path):
    """The files of a network, without its program."""
    folder = Location.parse(tmp_path)
    space = CONFIG.space((1, 16, 16), 10)
    teacher = freeze_teacher("t", DigitsCNN(4), (1, 16, 16), (0.3,), (0.3,))
    architecture = Architecture(CONFIG.model_dump(mode="json"), space, space.decode("12"))
    weights = {name: value.contiguous() for name, value in space.build(architecture.genotype).state_dict().items()}
    NetworkDescription.of(architecture, teacher).write(folder)
    (folder / "weights.safetensors").write_bytes(save(weights))
    History(({"loss": 1.0},)).write(folder)
    return folder


def with_value(name, value):
    """A change of one entry of a JSON object."""
    return lambda data: json.dumps({**json.loads(data), name: value}).encode()


UNREADABLE = {
    "no weights": ("weights.safetensors", lambda data: b""),
    "half of the weights": ("weights.safetensors", lambda data: data[: len(data) // 2]),
    "text for weights": ("weights.safetensors", lambda data: b"null" * 100),
    "no description": ("network.json", lambda data: b""),
    "null for a description": ("network.json", lambda data: b"null"),
    "another genotype": ("network.json", with_value("genotype", "no such")),
    "another space": ("network.json", with_value("space", {"kind": "no such"})),
}
OF_ANOTHER = {
    "other weights": ("weights.safetensors", lambda data: save({"x": torch.zeros(2)})),
    "other classes": ("network.json", with_value("num_classes", 7)),
}


@pytest.mark.parametrize("damage", [*UNREADABLE.values(), *OF_ANOTHER.values()], ids=[*UNREADABLE, *OF_ANOTHER])
def test_a_damaged_network_is_not_loaded_and_the_file_is_named(folder, damage):
    name, change = damage
    load_network(folder)
    (folder / name).write_bytes(change((folder / name).read_bytes()))
    with pytest.raises(StorageError, match="Delete it and run again") as error:
        load_network(folder)
    named = "weights.safetensors" if damage in OF_ANOTHER.values() else name
    assert str(folder / named) in str(error.value)
    assert "\n" not in str(error.value)


HISTORY = {"history": ("history.json", lambda data: b"null"), "epoch": ("history.json", lambda data: b"[5]")}


@pytest.mark.parametrize("damage", [*UNREADABLE.values(), *HISTORY.values()], ids=[*UNREADABLE, *HISTORY])
def test_a_network_with_a_damaged_file_is_not_whole(folder, damage):
    name, change = damage
    check_network(folder)
    (folder / name).write_bytes(change((folder / name).read_bytes()))
    with pytest.raises(StorageError, match=name):
        check_network(folder)


@pytest.mark.parametrize("name", ["weights.safetensors", "network.json", "history.json"])
def test_a_network_without_one_of_its_files_is_not_whole(folder, name):
    (folder / name).delete_file()
    with pytest.raises(StorageError, match=name):
        check_network(folder)
