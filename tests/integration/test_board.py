"""The board on which workers write: what was told reaches the log once, whenever the driver looks."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from dfnas_ray.execution.ray.board import ProgressBoard, _Board

pytestmark = pytest.mark.ray


def test_an_answer_that_never_arrived_loses_no_event():
    board = _Board()
    board.start("Retraining", "after epoch 0 of 2")
    board.start("Retraining", "after epoch 1 of 2")
    line = "Retraining was interrupted: start 2 continues after epoch 1 of 2."
    assert board.read(0)[2] == [line]
    assert board.read(0)[2] == [line]  # the first answer came too late for the driver
    assert board.read(1)[2] == []


def test_a_board_is_there_at_once_because_its_process_imports_no_torch():
    code = "import sys, dfnas_ray.execution.ray.board; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_is_told_last_is_logged_once(ray_cluster, caplog, monkeypatch):
    import ray

    caplog.set_level(logging.WARNING)
    monkeypatch.setattr("dfnas_ray.execution.ray.board._PATIENCE_SECONDS", 120.0)  # on a busy machine, too
    shown: list[float] = []
    board = ProgressBoard()

    @ray.remote(num_cpus=0)
    def work(board: ProgressBoard) -> None:
        from dfnas_ray.execution.ray import board as module

        module._PATIENCE_SECONDS = 120.0
        board.writer("x")(7.0, "")  # first: a worker's calls arrive in their order, and the next one is waited for
        board.start("Search trial x", "after epoch 0")
        board.start("Search trial x", "after epoch 3")

    with board.shown_on(SimpleNamespace(advance_to=lambda done, note: shown.append(done))):
        ray.get(work.remote(board))
    assert caplog.text.count("Search trial x was interrupted: start 2 continues after epoch 3.") == 1
    assert shown[-1] == 7.0


def test_a_worker_that_dies_right_after_its_start_was_noted(ray_cluster, caplog, tmp_path):
    import ray

    caplog.set_level(logging.WARNING)
    board = ProgressBoard()

    @ray.remote(num_cpus=0, max_retries=1)
    def work(board: ProgressBoard) -> None:
        board.start("Retraining", "after epoch 1 of 2")
        if not (tmp_path / "died").exists():
            (tmp_path / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)

    with board.shown_on(SimpleNamespace(advance_to=lambda done, note: None)):
        ray.get(work.remote(board))
    assert "Retraining was interrupted: start 2 continues after epoch 1 of 2." in caplog.text
