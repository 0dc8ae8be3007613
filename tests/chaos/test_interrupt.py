"""Ctrl-C: the command says what it leaves, records nothing as finished, and goes on from there."""

from __future__ import annotations

import signal
import time

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

SWEEP = "sweep={settings: {synthesis.lr: {uniform: [0.05, 0.2]}}, trials: 30, objectives: [semantics], reference: {settings: 2}}"
HALVING = "search.algorithm={kind: multi_fidelity, candidates: 40, max_epochs: 27, batch_size: 16}"


@pytest.mark.parametrize(
    ("command", "override", "artefact", "stage"),
    [
        pytest.param("search", "search.algorithm.epochs=500", "search/*/*-seed-0/state.pt", "search", id="search"),
        pytest.param(
            "search", HALVING, "search/*/*/candidate-*.json", "search", id="candidates", marks=pytest.mark.slow
        ),
        pytest.param(
            "run",
            "retraining.epochs=500",
            "retraining/*/train/checkpoint_*/state.pt",
            "retraining",
            id="retraining",
            marks=pytest.mark.slow,
        ),
        pytest.param("sweep", SWEEP, "sweep/*/trial-*/shard-*.parquet", "sweep", id="sweep", marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_command_finishes_nothing_and_says_so(
    start_dfnas, tiny_yaml, tmp_path, command, override, artefact, stage
):
    run_dir, log = tmp_path / "run", tmp_path / "log.txt"
    process = start_dfnas(command, tiny_yaml, "--run-dir", run_dir, "--set", override, log=log)
    limit = time.monotonic() + 200
    while not list(run_dir.glob(artefact)):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < limit, log.read_text()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130, log.read_text()
    assert "Interrupted. What is finished is kept" in log.read_text()
    assert "Traceback" not in log.read_text()
    assert not list(run_dir.glob(f"{stage}/*/done.json"))
