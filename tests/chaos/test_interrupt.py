"""Ctrl-C or SIGTERM: the command says what it leaves, records nothing as finished, and goes on from there."""

from __future__ import annotations

import os
import signal
import time

import pytest

pytestmark = pytest.mark.timeout(300)

LR = "synthesis.method.lr: {uniform: [0.05, 0.2]}"
SWEEP = f"sweep={{settings: {{{LR}}}, trials: 30, objectives: [semantics], reference: {{settings: 2}}}}"
HALVING = "search.algorithm={kind: multi_fidelity, candidates: 40, max_epochs: 27, batch_size: 16}"


ON_RAY = [pytest.mark.ray, pytest.mark.slow]


@pytest.mark.parametrize(
    ("address", "command", "override", "artefact"),
    [
        pytest.param("inline", "search", "search.algorithm.epochs=500", "*-seed-0/state.pt", id="search-inline"),
        pytest.param(
            "inline", "search", "search.algorithm.epochs=500", "*-seed-0/state.pt", id="search-inline-SIGTERM"
        ),
        pytest.param(
            "inline", "run", "retraining.epochs=500", "state.pt", id="retraining-inline", marks=pytest.mark.slow
        ),
        pytest.param("inline", "sweep", SWEEP, "trial-*/shard-*.parquet", id="sweep-inline", marks=pytest.mark.slow),
        pytest.param("local", "search", "search.algorithm.epochs=500", "*-seed-0/state.pt", id="search", marks=ON_RAY),
        pytest.param(
            "local", "search", "search.algorithm.epochs=500", "*-seed-0/state.pt", id="search-SIGTERM", marks=ON_RAY
        ),
        pytest.param(
            "local", "search", "search.algorithm.epochs=500", "*-seed-0/state.pt", id="search-GROUP", marks=ON_RAY
        ),
        pytest.param(
            "local",
            "synthesize",
            "synthesis.method.scales=[{scale: 1, steps: 5000}]",
            "inputs.json",
            id="synthesis-GROUP",
            marks=ON_RAY,
        ),
        pytest.param("local", "search", HALVING, "*/candidate-*.json", id="candidates", marks=ON_RAY),
        pytest.param(
            "local", "run", "retraining.epochs=500", "train/checkpoint_*/state.pt", id="retraining", marks=ON_RAY
        ),
        pytest.param("local", "sweep", SWEEP, "trial-*/shard-*.parquet", id="sweep", marks=ON_RAY),
    ],
)
def test_an_interrupted_command_finishes_nothing_and_says_so(
    start_dfnas, tiny_yaml, tmp_path, request, address, command, override, artefact
):
    stage = {"run": "retraining", "synthesize": "synthesis"}.get(command, command)
    run_dir, log = tmp_path / "run", tmp_path / "log.txt"
    process = start_dfnas(command, tiny_yaml, "--run-dir", run_dir, "--address", address, "--set", override, log=log)
    limit = time.monotonic() + 200
    while not list(run_dir.glob(f"{stage}/*/{artefact}")):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < limit, log.read_text()
        time.sleep(0.05)
    if "GROUP" in request.node.callspec.id:  # as `timeout` and Slurm do it: Ray's processes are told, too
        os.killpg(process.pid, signal.SIGTERM)
    else:
        process.send_signal(signal.SIGTERM if "SIGTERM" in request.node.callspec.id else signal.SIGINT)
    assert process.wait(60) == 130, log.read_text()
    assert "Interrupted. What is finished is kept" in log.read_text()
    assert "Traceback" not in log.read_text()
    assert not list(run_dir.glob(f"{stage}/*/done.json"))
