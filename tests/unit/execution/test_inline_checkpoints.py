"""The state of a retraining in this process, between two commands."""

import logging

import pytest
import torch

from dfnas_ray.storage.location import Location
from dfnas_ray.training.checkpoints import FileCheckpoints

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    return Location.parse(tmp_path)


@pytest.fixture
def checkpoints(folder):
    return FileCheckpoints(folder / "state.pt")


def loaded(checkpoints):
    states = []
    assert checkpoints.take_up(CPU, states.append)
    return states


def test_a_state_comes_back_as_it_was(checkpoints):
    assert loaded(checkpoints) == []
    checkpoints.save({"weights": torch.arange(3.0), "history": [{"loss": 1.0}]}, {"loss": 1.0})
    (state,) = loaded(checkpoints)
    assert state["weights"].tolist() == [0, 1, 2]
    assert state["history"] == [{"loss": 1.0}]


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"<html>"])
def test_a_damaged_state_is_named_and_set_aside_and_the_training_begins_anew(folder, checkpoints, damage, caplog):
    checkpoints.save({"weights": torch.arange(3.0)}, {"loss": 1.0})
    damaged = damage(checkpoints.file.read_bytes())
    checkpoints.file.write_bytes(damaged)
    with caplog.at_level(logging.WARNING):
        assert not checkpoints.take_up(CPU, pytest.fail)
    assert "state.pt is damaged" in caplog.text
    assert not checkpoints.file.exists()
    assert (folder / "state.pt.damaged").read_bytes() == damaged
