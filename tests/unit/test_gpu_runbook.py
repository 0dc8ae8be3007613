"""The runbook for GPUs, in the small and on the CPU: whoever is lent one has minutes, and none for a typing mistake."""

from __future__ import annotations

import importlib
import json

import pytest
import torch

from tests.benchmarks.gpu.__main__ import SECONDS, main
from tests.benchmarks.gpu.bench import Bench
from tests.benchmarks.gpu.table import page


@pytest.mark.parametrize("name", SECONDS)
def test_a_piece_runs_and_its_figures_are_shown(name, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda model, **options: model)
    bench = Bench(tmp_path, tmp_path, torch.device("cpu"), seconds=100, small=True)
    bench.write(name, {**importlib.import_module(f"tests.benchmarks.gpu.{name}").run(bench), "done": True})
    shown = page(tmp_path)
    assert f"## {name}" in shown
    assert str(bench.facts()["device"]) in shown


def test_a_piece_that_has_a_result_is_not_run_again(tmp_path, capsys):
    for name in SECONDS:
        (tmp_path / f"{name}.json").write_text(json.dumps({"done": True}))
    assert main(["--data", str(tmp_path), "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out == ""
