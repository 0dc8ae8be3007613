"""kill -9 of the command while Ray Train trains, and its checkpoints damaged: the same command ends with the same weights."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from undisturbed import assert_undisturbed

from dfnas_ray.library import run as run_experiment

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

EPOCHS = "retraining.epochs=40"  # the tiny experiment's two would be over before the command is killed


def halve(*files: Path) -> None:
    for file in files:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


DAMAGE: dict[str, Callable[[Path], None]] = {
    "newest": lambda train: halve(max(train.glob("checkpoint_2*/state.pt"), key=lambda file: file.stat().st_mtime)),
    "every": lambda train: halve(*train.glob("checkpoint_2*/state.pt")),
    "register": lambda train: halve(train / "checkpoint_manager_snapshot.json"),
    "nothing": lambda train: None,
}


@pytest.fixture(scope="module")
def undisturbed(tiny_inline_run, tiny_experiment, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    copy(tiny_inline_run.folder, folder)
    run_experiment(tiny_experiment(folder, EPOCHS, "cluster.address=inline"))
    return folder


def copy(run: Path, folder: Path) -> None:
    shutil.copytree(run, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("retraining", "baseline"))


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_live_training_that_is_killed_and_damaged_ends_with_the_same_weights(
    start_dfnas, tiny_values, tiny_inline_run, undisturbed, tmp_path, damage
):
    copy(tiny_inline_run.folder, tmp_path / "run")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_values()))
    log, line = tmp_path / "log.txt", ("run", tmp_path / "tiny.yaml", "--run-dir", tmp_path / "run", "--set", EPOCHS)
    command, end = start_dfnas(*line, log=log), time.monotonic() + 300
    while len(list((tmp_path / "run").glob("retraining/*/train/checkpoint_2*/state.pt"))) < 2:
        assert command.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < end, log.read_text()[-3000:]
        time.sleep(0.01)
    command.kill()
    command.wait()
    assert not list((tmp_path / "run").glob("retraining/*/done.json")), "killed too late to show anything"
    (train,) = (tmp_path / "run").glob("retraining/*/train")
    damage(train)
    assert start_dfnas(*line, log=log).wait(400) == 0, log.read_text()[-3000:]
    assert "Traceback" not in log.read_text()
    assert_undisturbed(tmp_path / "run", undisturbed)
    set_aside = list((tmp_path / "run").glob("retraining/*/*.damaged"))
    assert bool(set_aside) == (damage is not DAMAGE["nothing"])
    assert ("is kept as" in log.read_text()) == bool(set_aside)
