"""Latency tables: additive, saved and read back, refused where they do not belong."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dfnas_ray.algorithms.proxyless import LatencyTermConfig
from dfnas_ray.config.experiment import make_experiment
from dfnas_ray.errors import ConfigError
from dfnas_ray.search_spaces import NASBench201Config, NASBenchMacroConfig, latency
from dfnas_ray.search_spaces.latency import load_latency_table, measure_latency_table
from dfnas_ray.teachers.base import freeze_teacher
from dfnas_ray.teachers.digits import DigitsCNN
from dfnas_ray.workflow.search import Search
from dfnas_ray.workflow.session import Session

SPACE = NASBench201Config(channels=4, cells_per_stage=2).space((1, 16, 16), 10)
CPU = torch.device("cpu")


@pytest.fixture
def table(monkeypatch):
    """A table in which every part takes as many seconds as it has parameters."""
    monkeypatch.setattr(
        latency, "measure_latency", lambda module, *rest: float(sum(p.numel() for p in module.parameters()))
    )
    return measure_latency_table(SPACE, CPU)


def test_an_architectures_latency_is_the_sum_over_its_parts(table):
    for seed in range(5):
        genotype = SPACE.sample(np.random.default_rng(seed))
        assert table.latency(SPACE, genotype) == SPACE.cost(genotype).params


def test_a_real_measurement_ranks_the_largest_above_the_cheapest():
    measured = measure_latency_table(SPACE, CPU, min_seconds=0.001)
    largest = SPACE.derive(SPACE.cost_table.macs)
    assert measured.latency(SPACE, largest) > measured.latency(SPACE, SPACE.cheapest()) > 0


def test_a_saved_table_is_read_back(table, tmp_path):
    table.save(str(tmp_path / "t.json"))
    assert load_latency_table(str(tmp_path / "t.json"), SPACE) == table
    rows, fixed = LatencyTermConfig(file=str(tmp_path / "t.json")).table(SPACE)
    assert fixed == table.fixed
    assert [len(row) for row in rows] == list(SPACE.num_options)


def test_a_table_of_another_space_size_or_device_is_refused(table, tmp_path):
    file = str(tmp_path / "t.json")
    table.save(file)
    with pytest.raises(ConfigError, match="a table of nasbench201, not of nasbench_macro"):
        load_latency_table(file, NASBenchMacroConfig().space((1, 16, 16), 10))
    with pytest.raises(ConfigError, match="in another size"):
        load_latency_table(file, NASBench201Config(channels=8, cells_per_stage=2).space((1, 16, 16), 10))
    with pytest.raises(ConfigError, match=r"measured on .* not on 'phone'"):
        load_latency_table(file, SPACE, "phone")
    with pytest.raises(ConfigError, match=r"is not there\. Measure it with: dfnas space latency"):
        load_latency_table(str(tmp_path / "absent.json"), SPACE)
    (tmp_path / "t.json").write_text("{}")
    with pytest.raises(ConfigError, match="not a latency table"):
        load_latency_table(file, SPACE)


def test_a_search_depends_on_what_the_table_holds(table, tmp_path):
    teacher = freeze_teacher("t", DigitsCNN(4), (1, 16, 16), (0.5,), (0.5,))

    def key():
        cost = {"kind": "latency", "file": str(tmp_path / "t.json")}
        values = {
            "teacher": "digits",
            "run_dir": str(tmp_path / "run"),
            "search": {
                "space": {"kind": "nasbench201", "channels": 4, "cells_per_stage": 2},
                "algorithm": {"kind": "proxyless", "cost": cost},
                "max_macs": None,
            },
        }
        session = Session(make_experiment(values))
        session.__dict__["teacher"] = teacher  # a cached property
        stage = Search(session)
        stage.check()
        return stage.dir.key

    with pytest.raises(ConfigError, match="is not there"):
        key()
    table.save(str(tmp_path / "t.json"))
    first = key()
    assert key() == first
    table.model_copy(update={"fixed": table.fixed + 1}).save(str(tmp_path / "t.json"))
    assert key() != first
    table.model_copy(update={"space": "darts"}).save(str(tmp_path / "t.json"))
    with pytest.raises(ConfigError, match="a table of darts"):
        key()
