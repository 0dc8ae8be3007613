"""kill -9 of the command at work: the same command goes on and ends with the bytes of an undisturbed run."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import psutil
import pytest
import yaml
from undisturbed import assert_undisturbed

pytestmark = pytest.mark.timeout(420)

KILL_POINTS = {  # what has to be there, and what not yet, when the command is killed
    "synthesis": ("synthesis/*/shard-*.parquet", "synthesis/*/done.json"),
    "search": ("search/*/*-seed-*/state.pt", "search/*/done.json"),
    "retraining": ("retraining/*/train/checkpoint_*", "retraining/*/done.json"),
}


@pytest.fixture
def killed(start_dfnas, tiny_yaml, tmp_path):
    """Return a function that starts a command, kills its process when an artefact appears, and then runs it again."""
    children: list[psutil.Process] = []
    log = tmp_path / "log.txt"

    def run(command: str, artefact: str, not_yet: str, *arguments: str) -> Path:
        run_dir = tmp_path / "run"
        line = (command, tiny_yaml, "--run-dir", run_dir, *arguments)
        driver = start_dfnas(*line, log=log)
        try:
            wait_for(run_dir, artefact, driver, log)
        finally:
            own = psutil.Process(driver.pid)
            children.extend(own.children(recursive=True))
            driver.send_signal(signal.SIGKILL)  # the process alone: Ray's own have to notice
            driver.wait()
        assert not list(run_dir.glob(not_yet)), "killed too late to show anything"
        again = start_dfnas(*line, log=log)
        children.extend(children_when_done(again))
        assert again.returncode == 0, log.read_text()[-3000:]
        return run_dir

    yield run
    for process in children:  # psutil compares creation times: a reused pid is not touched
        if process.is_running():
            process.kill()


def wait_for(run_dir: Path, artefact: str, driver, log: Path, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not list(run_dir.glob(artefact)):
        assert driver.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < end, f"{artefact} did not appear: {log.read_text()[-3000:]}"
        time.sleep(0.02)


def children_when_done(driver, seconds: float = 240) -> list[psutil.Process]:
    """Wait for the command and return the processes that it had."""
    seen: dict[int, psutil.Process] = {}
    end = time.monotonic() + seconds
    while driver.poll() is None:
        try:
            seen.update({child.pid: child for child in psutil.Process(driver.pid).children(recursive=True)})
        except psutil.NoSuchProcess:
            break
        if time.monotonic() > end:
            os.kill(driver.pid, signal.SIGKILL)
        time.sleep(0.5)
    driver.wait()
    return list(seen.values())


def only(run_dir: Path, pattern: str) -> Path:
    (found,) = run_dir.glob(pattern)
    return found


def test_a_search_in_one_process_killed_after_its_first_state_ends_as_if_undisturbed(killed, tiny_inline_run):
    run_dir = killed("search", *KILL_POINTS["search"], "--address", "inline")
    assert_undisturbed(run_dir, tiny_inline_run.folder, ("synthesis", "search"))


@pytest.mark.ray
@pytest.mark.slow
def test_a_search_killed_after_its_first_state_ends_as_if_undisturbed(killed, tiny_run):
    run_dir = killed("search", *KILL_POINTS["search"])
    assert_undisturbed(run_dir, tiny_run.folder, ("synthesis", "search"))


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["synthesis", "search", "retraining"])
def test_a_run_killed_at_any_stage_ends_as_if_undisturbed(killed, tiny_run, stage):
    run_dir = killed("run", *KILL_POINTS[stage])
    assert_undisturbed(run_dir, tiny_run.folder)


@pytest.mark.ray
@pytest.mark.slow
def test_a_sweep_killed_in_its_second_trial_loses_and_repeats_nothing(killed, tiny_yaml):
    values = yaml.safe_load(tiny_yaml.read_text())
    values["sweep"] = {
        "settings": {"synthesis.regularizers.bn_statistics.weight": {"log_uniform": [0.03, 30]}},
        "trials": 4,
        "concurrency": 1,
        "student": {"steps": 6, "batch_size": 16},
        "reference": {"settings": 2, "images": 20},
    }
    tiny_yaml.write_text(yaml.safe_dump(values))
    run_dir = killed("sweep", "sweep/*/trial-00001/shard-00000.parquet", "sweep/*/done.json")
    folder = only(run_dir, "sweep/*/best.yaml").parent
    trials = json.loads((folder / "trials.json").read_text())
    assert [(trial["number"], trial["state"]) for trial in trials] == [(number, "complete") for number in range(4)]
    first, second = (folder / f"trial-0000{number}" / "shard-00000.parquet" for number in (0, 1))
    assert max(first.stat().st_mtime, second.stat().st_mtime) < min(
        path.stat().st_mtime for path in folder.glob("trial-0000[23]/shard-00000.parquet")
    ), "the shards that were there when the command was killed are not made again"


@pytest.mark.ray
@pytest.mark.slow
def test_a_multi_fidelity_search_killed_at_work_loses_and_repeats_nothing(killed, tiny_yaml):
    values = yaml.safe_load(tiny_yaml.read_text())
    values["search"]["seeds"] = [0]
    values["search"]["algorithm"] = {
        "kind": "multi_fidelity", "candidates": 8, "max_epochs": 4, "reduction_factor": 2, "batch_size": 16,
    }  # fmt: skip
    tiny_yaml.write_text(yaml.safe_dump(values))
    run_dir = killed("search", "search/*/*-seed-0/candidate-00003.pt", "search/*/done.json")
    folder = only(run_dir, "search/*/*-seed-0")
    files = sorted(folder.glob("candidate-*.json"))
    candidates = [json.loads(file.read_text()) for file in files]
    assert len({candidate["genotype"] for candidate in candidates}) == 8
    for candidate in candidates:
        reached = [result["epochs"] for result in candidate["results"]]
        assert reached == [1, 2, 4][: len(reached)]
        assert candidate["is_stopped"] == (reached[-1] < 4)
    assert not list(folder.glob("*.pt"))
    assert files[0].stat().st_mtime < only(folder, "candidate-00007.json").stat().st_mtime, (
        "what was over stays as it was"
    )
