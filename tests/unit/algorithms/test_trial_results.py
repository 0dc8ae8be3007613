"""The result of a search trial: what was altered is named and removed; what can be read can be compared."""

from __future__ import annotations

import json
import math

import pytest

from dfnas_ray.algorithms.config import SearchConfig
from dfnas_ray.algorithms.selection import ComparedScores, ComparedTrial
from dfnas_ray.algorithms.trials import SearchJob, TrialResult
from dfnas_ray.config.cluster import SearchResources
from dfnas_ray.search_spaces import NASBenchMacroConfig
from dfnas_ray.storage.location import Location

RESULT = {
    "trial": "spos-nasbench_macro-seed-0",
    "algorithm": "spos",
    "space": "nasbench_macro",
    "space_config": NASBenchMacroConfig().model_dump(mode="json"),
    "seed": 0,
    "genotype": "01",
    "macs": 5,
    "params": 6,
    "own_score": -1.0,
    "finalists": ["01", "10"],
    "history": [
        {"phase": "training", "number": 1, "loss": 2.0, "images": 40},
        {"phase": "sampling", "number": 1, "best": -1.0, "scores": [-1.0, math.nan], "genotypes": ["01", "10"]},
    ],
    "arrivals": [[0, 2], [1]],
}
ALTERED = [
    None,
    [],
    {},
    *(
        {**RESULT, name: value}
        for name, value in [
            ("macs", -1),
            ("params", "many"),
            ("history", [{}]),
            ("history", [{"phase": "training", "number": 1, "loss": []}]),
            ("history", [{"phase": "sampling", "number": 1, "scores": 5}]),
            ("finalists", []),
            ("mood", "good"),
            ("seed", 1),
            ("trial", "another"),
            ("space_config", {"kind": "nasbench_macro", "stem_channels": 10**9}),
        ]
    ),
]


@pytest.fixture
def job(tmp_path):
    config = SearchConfig.model_validate(
        {"algorithm": {"kind": "spos"}, "space": {"kind": "nasbench_macro"}, "seeds": [0]}
    )
    return SearchJob(config, SearchResources(), 0, None, Location.parse(tmp_path))


@pytest.mark.parametrize("content", ALTERED, ids=range(len(ALTERED)))
def test_an_altered_result_is_named_and_the_trial_is_not_over(job, content):
    (trial,), said = job.config.trials, []
    job.result_file(trial).write_json(content)
    assert not job.is_over(trial, said.append)
    (line,) = said
    assert str(job.result_file(trial)) in line
    assert "\n" not in line
    assert not job.result_file(trial).exists()


def test_a_result_that_can_be_read_is_written_as_it_was_and_can_be_compared(job):
    (trial,), said = job.config.trials, []
    file = job.result_file(trial)
    file.write_json(RESULT)
    before = file.read_bytes()
    assert job.is_over(trial, said.append)
    (result,) = job.results()
    result.write(file)
    assert file.read_bytes() == before
    assert [finalist.genotype for finalist in ComparedTrial.of(result).finalists] == ["01", "10"]
    assert said == []


def test_a_result_without_arrivals_has_no_entry_for_them(job):
    (trial,) = job.config.trials
    TrialResult.model_validate({**RESULT, "arrivals": None}).write(job.result_file(trial))
    assert "arrivals" not in json.loads(job.result_file(trial).read_bytes())


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b'{"a": "good"}', b'{"a": {}}'])
def test_an_altered_comparison_is_named_and_begins_anew(tmp_path, content):
    folder, said = Location.parse(tmp_path), []
    assert ComparedScores.read(folder, said.append) == {}
    (folder / "comparison.json").write_json({"a": -1.0})
    assert ComparedScores.read(folder, said.append) == {"a": -1.0}
    (folder / "comparison.json").write_bytes(content)
    assert ComparedScores.read(folder, said.append) == {}
    (line,) = said
    assert "comparison.json" in line
