"""kill -9 of workers at their work: the run ends with the bytes of an undisturbed one, and says what happened."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from undisturbed import assert_undisturbed

from dfnas_ray.library import run as run_experiment

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


def workers(title: str) -> list[psutil.Process]:
    """The cluster's processes that are at work on something."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.cmdline()[0].startswith(title):
                found.append(process)
        except (psutil.NoSuchProcess, IndexError):
            continue
    return found


class Killer(threading.Thread):
    """Kills one process of a title as soon as an artefact is there, and knows what it did."""

    def __init__(self, title: str, artefact: Callable[[], bool]):
        super().__init__(daemon=True)
        self.title, self.artefact, self.over = title, artefact, threading.Event()
        self.killed = 0

    def run(self) -> None:
        while not self.over.wait(0.01):
            if not self.artefact():
                continue
            for process in workers(self.title):
                process.kill()
                self.killed += 1
                return


@pytest.fixture
def disturbed(ray_cluster, tiny_experiment, tmp_path):
    """Return a function that goes the whole way of the tiny experiment while a process is killed."""

    def run(title: str, artefact: str, *overrides: str) -> Path:
        killer = Killer(title, lambda: bool(list(tmp_path.glob(artefact))))
        killer.start()
        run_experiment(tiny_experiment(tmp_path, *overrides))
        killer.over.set()
        assert killer.killed == 1, "nothing was killed: the test shows nothing"
        return tmp_path

    return run


@pytest.mark.parametrize(
    ("title", "artefact", "remark"),
    [
        pytest.param("ray::Worker.do", "synthesis/*/inputs.json", "A worker of the synthesis stage died",
            id="synthesis", marks=pytest.mark.slow,  # tests/integration/test_pool.py kills actors that only pretend
        ),
        pytest.param(
            "ray::ImplicitFunc", "search/*/*-seed-0/state.pt", "was interrupted: start 2 continues", id="search",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "ray::RayTrainWorker", "retraining/*/train/checkpoint_*/state.pt", "Retraining was interrupted: start 2 continues",
            id="retraining", marks=pytest.mark.slow,
        ),
        pytest.param(
            "ray::TrainController", "retraining/*/train/checkpoint_*/state.pt", "attempt 2 of 3 follows",
            id="retraining-controller", marks=pytest.mark.slow,
        ),
    ],
)  # fmt: skip
def test_a_killed_worker_changes_nothing_but_the_log(disturbed, tiny_run, caplog, title, artefact, remark):
    caplog.set_level(logging.WARNING)
    assert_undisturbed(disturbed(title, artefact), tiny_run.folder)
    assert remark in caplog.text


def test_workers_are_found_by_their_titles(ray_cluster):
    import ray

    @ray.remote(num_cpus=0)
    def a_task_of_this_test():
        time.sleep(20)

    running = a_task_of_this_test.remote()
    end = time.monotonic() + 30
    while not workers("ray::a_task_of_this_test") and time.monotonic() < end:
        time.sleep(0.1)
    assert len(workers("ray::a_task_of_this_test")) == 1
    ray.cancel(running, force=True)
