"""Event files for TensorBoard, written by every finished stage into the run directory."""

from __future__ import annotations

import logging
import struct
from pathlib import Path

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from dfnas_ray.storage.location import Location
from dfnas_ray.storage.run_dir import flat
from dfnas_ray.workflow.events import EventLog


def read(file):
    """Return the events of a file: records of a length, its checksum, the event, its checksum."""
    data, place, events = Path(file).read_bytes(), 0, []
    while place < len(data):
        (length,) = struct.unpack_from("<Q", data, place)
        events.append(Event.FromString(data[place + 12 : place + 12 + length]))
        place += 12 + length + 4
    return events


def scalars(file):
    """Return the points of each curve by its tag."""
    found = {}
    for event in read(file):
        for value in event.summary.value:
            if value.HasField("simple_value"):
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def tags(file):
    return {value.tag for event in read(file) for value in event.summary.value}


@pytest.fixture
def stage(tiny_inline_run):
    """Return a function that gives the event files of a stage, by their runs."""

    def find(name):
        (folder,) = (Path(tiny_inline_run.folder) / "tensorboard").glob(f"{name}-*")
        return {str(file.parent.relative_to(folder)): file for file in folder.rglob("*tfevents*")}

    return find


def test_retraining_has_a_point_of_each_figure_for_each_epoch(stage, tiny_inline_run):
    epochs = len((tiny_inline_run.outcomes["retraining"].location / "history.json").read_json())
    for name in ("retraining", "baseline"):
        found = scalars(stage(name)["."])
        assert [step for step, _ in found["loss"]] == list(range(1, epochs + 1))
        assert found["agreement"][0][1] == pytest.approx(tiny_inline_run.outcomes[name].record.validation_agreement)
    assert "_hparams_/session_start_info" in tags(stage("retraining")["."])


def test_synthesis_has_loss_terms_images_and_hyperparameters(stage):
    runs = stage("synthesis")
    assert "loss/total" in scalars(runs["shard-00000"])
    assert {"images", "domain_gap", "_hparams_/experiment"} <= tags(runs["."])


def test_a_search_has_a_run_for_each_trial(stage, tiny_inline_run):
    runs = stage("search")
    assert len(runs) == len(tiny_inline_run.outcomes["search"].record.trials)
    for file in runs.values():
        assert any(name.startswith(("training/", "sampling/")) for name in scalars(file))


def test_what_is_not_a_number_is_left_out_and_settings_are_plain(tmp_path):
    with EventLog(Location.parse(tmp_path)).run("a") as run:
        run.scalar("loss", float("nan"), 1)
        run.scalar("loss", 2.0, 2)
        run.hyperparameters(flat({"a": {"b": 1, "c": None}, "d": [1]}), {"x": float("inf"), "y": 3})
        run.images("grid", np.zeros((3, 1, 2, 2), np.uint8), columns=2)
    found = scalars(tmp_path / "a" / "events.out.tfevents.0.dfnas")
    assert found == {"loss": [(2, 2.0)], "y": [(0, 3.0)]}


def test_a_folder_that_cannot_be_written_is_said_and_no_more(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    caplog.set_level(logging.WARNING)
    with EventLog(Location.parse(tmp_path / "file")).run() as run:
        run.scalar("loss", 1.0, 1)
    assert "There are no curves for TensorBoard" in caplog.text
