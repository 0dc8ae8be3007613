"""The search of the benchmark script, in the small: in pieces it finds what it finds in one go."""

from __future__ import annotations

import importlib.util
import itertools
import json
from pathlib import Path

import pytest

from dfnas_ray.search_spaces.nasbench201 import OPERATIONS, NASBench201Config
from dfnas_ray.seeding import fixed_threads

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "nasbench201_search.py"
EXPERIMENT = """
teacher: {kind: digits, width: 4, epochs: 1}
synthesis:
  num_shards: 2
  images_per_shard: 20
  method: {kind: inversion, batch_size: 20, rounds: 1, scales: [{scale: 1, steps: 3}], warmup_steps: 1}
  canvas_margin: 2
  compile: false
search:
  space: {kind: nasbench201, channels: 4, cells_per_stage: 1}
  algorithm:
    - kind: zero_cost
      proxies: [synflow, naswot]
      batch_size: 8
      evolution: {generations: 2, population: 4, parents: 2, mutations: 2, crossovers: 1}
    - {kind: spos, epochs: 2, batch_size: 16, evolution: {generations: 1, population: 3, parents: 2}}
  max_macs: null
  selection: {finalists: 2, epochs: 1, batch_size: 16}
"""


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("nasbench201_search", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def arguments(tmp_path):
    """Return a function that gives the command line for one folder; the table holds every cell."""
    space = NASBench201Config().space((3, 32, 32), 10)
    cells = itertools.product(range(len(OPERATIONS)), repeat=6)
    rows = [f"{space.encode(cell)},{10 + sum(cell)}" for cell in cells]
    (tmp_path / "table.csv").write_text("\n".join(["arch,accuracy", *rows]))
    (tmp_path / "x.yaml").write_text(EXPERIMENT)

    def make(out, *more):
        table = str(tmp_path / "table.csv")
        return [str(tmp_path / "x.yaml"), "--table", table, "--out", str(tmp_path / out), "--seeds", "0", "1", *more]

    return make


def results(folder):
    return {str(file.relative_to(folder)): json.loads(file.read_text()) for file in folder.rglob("result.json")}


def test_in_pieces_it_ends_as_in_one_go_and_looks_up_what_it_found(script, arguments, tmp_path, monkeypatch, capsys):
    with fixed_threads(1):
        assert script.main(arguments("whole")) == 0
        printed = capsys.readouterr().out
        calls = itertools.count(1)

        def stop_at_every_seventh(self):
            if next(calls) % 7 == 0:
                raise script.OutOfTime

        monkeypatch.setattr(script.Clock, "check", stop_at_every_seventh)
        codes = [script.main(arguments("pieces"))]
        while codes[-1] == script.OUT_OF_TIME:
            assert len(codes) < 60
            codes.append(script.main(arguments("pieces")))
    assert codes[-1] == 0
    assert len(codes) > 5
    found = results(tmp_path / "whole")
    assert len(found) == 4, "two algorithms with two seeds"
    assert results(tmp_path / "pieces") == found
    space = NASBench201Config().space((3, 32, 32), 10)
    for result in found.values():
        accuracy = 10 + sum(space.decode(result["best"]))
        assert f"| {result['best']} | {accuracy:.2f} |" in printed


def test_a_call_without_time_makes_nothing(script, arguments, tmp_path, capsys):
    assert script.main(arguments("none", "--minutes", "0")) == script.OUT_OF_TIME
    assert not results(tmp_path / "none")
    assert "run the same command again" in capsys.readouterr().out
