"""Files that a stage reads again: one that was altered is named, removed, and counts as absent."""

from __future__ import annotations

import logging

import pytest
import torch
from pydantic import BaseModel

from dfnas_ray.errors import StorageError
from dfnas_ray.storage.altered import is_intact, load_or_set_aside, read_or_remove
from dfnas_ray.storage.location import Location


class Number(BaseModel):
    number: int


@pytest.fixture
def file(tmp_path):
    return Location.parse(tmp_path / "number.json")


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b'{"number": "many"}', b"[" * 5000 + b"]" * 5000])
def test_an_altered_file_is_named_in_one_line_and_removed(file, content):
    said = []
    file.write_bytes(content)
    assert read_or_remove(file, Number, said.append) is None
    (line,) = said
    assert str(file) in line
    assert "\n" not in line
    assert not file.exists()


def test_a_file_that_is_right_or_not_there_is_left_alone(file):
    said = []
    assert read_or_remove(file, Number, said.append) is None
    file.write_json({"number": 3})
    assert read_or_remove(file, Number, said.append) == Number(number=3)
    assert (said, file.exists()) == ([], True)


def test_a_storage_that_is_out_of_order_removes_nothing(file, monkeypatch):
    file.write_json({"number": 3})

    def refuse(self, model):
        raise StorageError("Cannot read it.") from PermissionError("not yours")

    monkeypatch.setattr(Location, "read_model", refuse)
    with pytest.raises(StorageError, match="Cannot read"):
        read_or_remove(file, Number)
    assert file.exists()


def test_a_damaged_state_is_named_once_and_kept_beside_its_place(file, caplog):
    def load(data):
        raise ValueError("half of it\nis missing")

    file.write_bytes(b"half")
    with caplog.at_level(logging.WARNING):
        assert not load_or_set_aside(file, load)
    (record,) = caplog.records
    assert str(file) in record.getMessage()
    assert "\n" not in record.getMessage()
    assert not file.exists()
    assert Location(file.filesystem, f"{file.path}.damaged").read_bytes() == b"half"


def test_a_device_without_room_is_no_damage(file):
    def load(data):
        raise torch.OutOfMemoryError("full")

    file.write_bytes(b"whole")
    with pytest.raises(torch.OutOfMemoryError):
        load_or_set_aside(file, load)
    assert file.read_bytes() == b"whole"


def test_what_cannot_be_read_is_said(file):
    said = []
    assert not is_intact(lambda: file.read_model(Number), said.append)
    assert str(file) in said[0]
    file.write_json({"number": 3})
    assert is_intact(lambda: file.read_model(Number), said.append)
    assert len(said) == 1
