"""The table of a truth, and what is recorded of it."""

from __future__ import annotations

import math

import pytest

from dfnas_ray.ranking.config import BenchmarkConfig
from dfnas_ray.ranking.table import read_table
from dfnas_ray.ranking.truth import RecordedTruth, TrainedChunk, TrueFigures, truth_table
from dfnas_ray.search_spaces.nasbench_macro import NASBenchMacroConfig
from dfnas_ray.storage.location import Location
from dfnas_ray.training.evaluation import Grade

SPACE = NASBenchMacroConfig(stem_channels=4, stage_layers=(1, 1), stage_channels=(8, 16), head_channels=16).space(
    (1, 16, 16), 10
)


def chunk(**accuracies):
    figures = {text.strip("_"): TrueFigures(accuracy=value, nll=1.0) for text, value in accuracies.items()}
    return TrainedChunk(seconds=2, figures=figures)


def test_accuracies_are_in_percent_and_a_diverged_training_has_no_likelihood(tmp_path):
    figures = {"00": TrueFigures.of(Grade(0.5, 1.25)), "21": TrueFigures.of(Grade(1 / 3, math.inf))}
    costs = [SPACE.cost((0, 0)), SPACE.cost((2, 1))]
    data = truth_table(SPACE, ["21", "00"], figures)
    assert data.decode().splitlines() == [
        "arch,accuracy,nll,params,macs",
        f"21,33.3333,,{costs[1].params},{costs[1].macs}",
        f"00,50.0000,1.250000,{costs[0].params},{costs[0].macs}",
    ]
    (tmp_path / "table.csv").write_bytes(data)
    table = read_table(BenchmarkConfig(table=str(tmp_path / "table.csv")), SPACE)
    assert table.architectures == ((2, 1), (0, 0))
    assert table.accuracies.tolist() == [33.3333, 50.0]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b'{"seconds": -1, "figures": {"00": {"accuracy": 0.5, "nll": 1}}}',
        b'{"seconds": 1, "figures": {}}',
        b'{"seconds": 1, "figures": {"00": {"accuracy": 50, "nll": 1}}}',
        b'{"seconds": 1, "figures": {"00": {"accuracy": 0.5}}}',
    ],
)
def test_an_altered_chunk_is_named_and_missing_and_no_other_is_overwritten(tmp_path, content):
    folder, said = Location.parse(tmp_path), []
    recorded = RecordedTruth(folder)
    for name, accuracy in (("_00", 0.1), ("_01", 0.2), ("_02", 0.3)):
        recorded.add(chunk(**{name: accuracy}))
    (tmp_path / "trained-00001.json").write_bytes(content)
    again = RecordedTruth(folder, said.append)
    (line,) = said
    assert "trained-00001.json" in line
    assert (again.missing(["00", "01", "02"]), again.seconds) == (["01"], 4.0)
    again.add(chunk(_01=0.4))
    found = RecordedTruth(folder).figures
    assert {text: one.accuracy for text, one in found.items()} == {"00": 0.1, "01": 0.4, "02": 0.3}
