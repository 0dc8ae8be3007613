"""A training whose state was damaged: it is set aside and named, and the training goes on from the last one that is good."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from io import BytesIO

import pytest
import ray
import torch

from dfnas_ray.config.cluster import ClusterConfig, RetrainingResources
from dfnas_ray.execution.inline import Computed, InlineExecutor
from dfnas_ray.execution.ray.checkpoints import recover
from dfnas_ray.search_spaces import NASBenchMacroConfig
from dfnas_ray.storage.location import Location
from dfnas_ray.testing.small import small_images, small_teacher
from dfnas_ray.training.checkpoints import FileCheckpoints
from dfnas_ray.training.config import RetrainingConfig
from dfnas_ray.training.retraining import RetrainingJob, decode_checkpoint, epochs_of, train_network

CPU = torch.device("cpu")
SPACE = NASBenchMacroConfig(stem_channels=4, stage_layers=(1,), stage_channels=(8,), head_channels=8)
OTHER = NASBenchMacroConfig(stem_channels=4, stage_layers=(1,), stage_channels=(16,), head_channels=8)


class NoBoard:
    def writer(self, worker):
        return lambda done, note="": None

    def start(self, worker, where):
        self.where = where


@pytest.fixture
def job(tmp_path):
    config = RetrainingConfig.model_validate({"epochs": 2, "batch_size": 4, "distillation": {"labels": "stored"}})
    space = SPACE.space((1, 16, 16), 10)
    return RetrainingJob(config, RetrainingResources(), 0, space, (0,), 0.25, Location.parse(tmp_path))


def train(job, epochs=2):
    images, board = small_images(16), NoBoard()
    checkpoints = FileCheckpoints(job.folder / "state.pt")
    config = job.config.model_copy(update={"epochs": epochs})
    train_network(replace(job, config=config), small_teacher(), images, CPU, checkpoints, board)
    return checkpoints.file.read_bytes(), board.where


def saved(value):
    buffer = BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def weights(data):
    return decode_checkpoint(data, CPU)["student"]["model"]


DAMAGE = {
    "half": lambda good: saved(good)[:2000],
    "empty": lambda good: b"",
    "a list": lambda good: saved([1, 2]),
    "no student": lambda good: saved({"history": good["history"]}),
    "no history": lambda good: saved({"student": good["student"], "history": []}),
    "another history": lambda good: saved({**good, "history": [{"mood": 1.0}]}),
    "a lost weight": lambda good: saved({**good, "student": {**good["student"], "model": {}}}),
    "another optimizer": lambda good: saved({**good, "student": {**good["student"], "optimizer": {"state": {}}}}),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_state_is_set_aside_and_the_training_ends_as_if_undisturbed(job, tmp_path, damage, caplog):
    undisturbed, _ = train(job)
    damaged = damage(decode_checkpoint(undisturbed, CPU))
    (tmp_path / "state.pt").write_bytes(damaged)
    again, where = train(job)
    assert where == "after epoch 0 of 2"
    assert all(torch.equal(a, b) for a, b in zip(weights(again).values(), weights(undisturbed).values(), strict=True))
    assert (tmp_path / "state.pt.damaged").read_bytes() == damaged
    assert caplog.text.count("state.pt is damaged") == 1


def test_a_pipe_in_place_of_a_state_is_set_aside(job, tmp_path, caplog):
    os.mkfifo(tmp_path / "state.pt")
    _, where = train(job)
    assert where == "after epoch 0 of 2"
    assert "state.pt is a pipe or a device" in caplog.text


def test_a_whole_state_is_gone_on_from(job):
    train(job, epochs=1)
    assert train(job)[1] == "after epoch 1 of 2"


# Ray Train's


@pytest.fixture
def checkpoints(job, tmp_path):
    """What Ray Train leaves of two epochs; return the folder."""
    folder = tmp_path / "train"
    for epochs in (1, 2):
        (folder / f"checkpoint_{epochs}").mkdir(parents=True)
        (folder / f"checkpoint_{epochs}" / "state.pt").write_bytes(train(job, epochs)[0])
    (tmp_path / "state.pt").unlink()
    write_snapshot(folder)
    return folder


def write_snapshot(folder, latest="checkpoint_2", version=ray.__version__):
    named = [{"checkpoint_dir_name": name, "metrics": {}} for name in ("checkpoint_1", latest)]
    content = {"ray_version": version, "checkpoint_results": named, "pending_training_results": []}
    (folder / "checkpoint_manager_snapshot.json").write_text(
        json.dumps({**content, "latest_checkpoint_result": named[-1], "current_report_index": 2})
    )


def epochs(file):
    return len(decode_checkpoint(file.read_bytes(), CPU)["history"])


def test_what_is_whole_is_left_to_ray_train(job, checkpoints):
    recover(job, pytest.fail)
    assert {file.name for file in checkpoints.parent.iterdir()} == {"train"}
    assert epochs_of(job, decode_checkpoint((checkpoints / "checkpoint_2" / "state.pt").read_bytes(), CPU)) == 2


def test_a_state_that_is_ahead_of_ray_train_is_gone_on_from(job, checkpoints, tmp_path):
    """A comparison with more workers has trained on, without Ray Train."""
    said = []
    train(job, epochs=3)
    recover(job, said.append)
    (line,) = said
    assert f"{checkpoints} is behind {tmp_path}/state.pt" in line
    assert not checkpoints.exists()
    assert epochs(tmp_path / "state.pt") == 3


def test_a_state_that_is_behind_is_left_alone(job, checkpoints, tmp_path):
    train(job, epochs=1)
    recover(job, pytest.fail)
    assert checkpoints.exists()


@pytest.mark.parametrize("damage", [*list(DAMAGE.values())[:4], None, "pipe"], ids=[*list(DAMAGE)[:4], "lost", "pipe"])
def test_a_damaged_last_checkpoint_is_set_aside_and_the_one_before_it_gone_on_from(job, checkpoints, damage, tmp_path):
    said, file = [], checkpoints / "checkpoint_2" / "state.pt"
    good = decode_checkpoint(file.read_bytes(), CPU)
    file.unlink()
    if damage == "pipe":
        os.mkfifo(file)
    elif damage is not None:
        file.write_bytes(damage(good))
    recover(job, said.append)
    (line,) = said
    assert f"{checkpoints}/checkpoint_2 is damaged. It is kept as train.damaged" in line
    assert not checkpoints.exists()
    assert epochs(tmp_path / "state.pt") == 1


def test_if_all_are_damaged_the_training_begins_anew(job, checkpoints, tmp_path):
    for file in checkpoints.glob("*/state.pt"):
        file.write_bytes(b"x")
    (tmp_path / "state.pt").write_bytes(b"y")
    said = []
    recover(job, said.append)
    assert len(said) == 2
    assert not (tmp_path / "state.pt").exists()


def train_inline(job, epochs):
    """Train as with `--address inline`; return where that began."""
    executor, board = InlineExecutor(ClusterConfig(), job.folder), NoBoard()
    job = replace(job, config=job.config.model_copy(update={"epochs": epochs}))
    executor.train(job, Computed(small_teacher), Computed(lambda: small_images(16)), board)
    return board.where


def test_without_ray_the_last_checkpoint_of_ray_train_is_gone_on_from(job, checkpoints, tmp_path):
    assert train_inline(job, epochs=3) == "after epoch 2 of 3"
    assert epochs(tmp_path / "state.pt") == 3


def test_without_ray_a_state_that_is_ahead_of_ray_train_is_gone_on_from(job, checkpoints, tmp_path):
    train(job, epochs=3)
    assert train_inline(job, epochs=4) == "after epoch 3 of 4"


def test_without_ray_what_is_damaged_is_set_aside_and_the_last_that_is_whole_gone_on_from(
    job, checkpoints, tmp_path, caplog
):
    (tmp_path / "state.pt").write_bytes(b"x")
    (checkpoints / "checkpoint_2" / "state.pt").write_bytes(b"y")
    assert train_inline(job, epochs=2) == "after epoch 1 of 2"
    assert (tmp_path / "state.pt.damaged").read_bytes() == b"x"
    assert caplog.text.count("state.pt is damaged") == 1


@pytest.mark.parametrize("content", ["", "null", "[]", '{"checkpoint_results": 5}', "[" * 9999, '{"ray_version": "1"'])
def test_a_damaged_file_of_ray_train_is_set_aside_and_the_last_checkpoint_gone_on_from(
    job, checkpoints, tmp_path, content
):
    said = []
    (checkpoints / "checkpoint_manager_snapshot.json").write_text(content)
    shutil.copytree(checkpoints / "checkpoint_2", checkpoints / "checkpoint_3")
    (checkpoints / "checkpoint_3" / "state.pt").write_bytes(b"half of what was uploaded")
    recover(job, said.append)
    assert "checkpoint_manager_snapshot.json" in said[0]
    assert epochs(tmp_path / "state.pt") == 2


def test_a_file_of_another_ray_is_named(job, checkpoints, tmp_path):
    said = []
    write_snapshot(checkpoints, version="2.1.0")
    recover(job, said.append)
    assert "was written by Ray 2.1.0" in said[0]
    assert epochs(tmp_path / "state.pt") == 2


@pytest.mark.parametrize("name", ["..", "../../other", "/etc", "checkpoint_1/../../..", "", "checkpoint_\n"])
def test_a_name_that_leads_elsewhere_is_never_followed(job, checkpoints, tmp_path, name):
    said = []
    write_snapshot(checkpoints, latest=name)
    recover(job, said.append)
    assert "is not the name of a checkpoint" in said[0]
    assert epochs(tmp_path / "state.pt") == 2
