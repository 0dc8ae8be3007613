"""Benchmarks, in one process and on Ray: from a table to figures, broken off and gone on with, grown, and refused."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import numpy as np
import pyarrow.parquet as pq
import pytest

from dfnas_ray.algorithms.ranks import add_up_ranks
from dfnas_ray.config.experiment import make_experiment
from dfnas_ray.errors import DfnasError
from dfnas_ray.library import benchmark
from dfnas_ray.ranking.recorded import Recorded
from dfnas_ray.search_spaces import NASBench201Config

pytestmark = pytest.mark.timeout(300)

SPACE = {"kind": "nasbench201", "channels": 4, "cells_per_stage": 1}
QUICK = {"kind": "random_search", "epochs": 1, "batch_size": 16}
SPOS = {"kind": "spos", "epochs": 2, "batch_size": 16, "calibration_batches": 1}


def write_table(file, rows=12):
    """A table whose accuracies are the parameters in thousands, so that this baseline ranks it perfectly."""
    space = NASBench201Config(channels=4, cells_per_stage=1).space((1, 16, 16), 10)
    rng = np.random.default_rng(0)
    cells = {}
    while len(cells) < rows:
        genotype = space.sample(rng)
        cells.setdefault(space.cost(genotype).params, space.encode(genotype))
    lines = [f"{text},{params / 1000}" for params, text in cells.items()]
    file.write_text("arch,accuracy\n" + "\n".join(lines) + "\n")
    return file


@pytest.fixture
def experiment(tiny_values, address, tmp_path):
    """Return a function that makes an experiment with a table of twelve architectures."""
    table = write_table(tmp_path / "table.csv")

    def make(algorithm=QUICK, **settings):
        values = tiny_values()
        values["search"] |= {"space": SPACE, "algorithm": algorithm}
        values["cluster"]["address"] = address
        section = {"table": str(table), "seeds": [0, 1], "chunk_size": 3, **settings}
        return make_experiment({**values, "run_dir": str(tmp_path / "run"), "benchmark": section})

    return make


def run(config, listener=None):
    return benchmark(config, listener)


def result_of(outcome):
    result = (outcome.location / "benchmark.json").read_json()
    return {row["title"]: row for row in result["rankings"]}, result


def without_times(rows):
    return {title: {**row, "seconds_per_architecture": 0} for title, row in rows.items()}


def measured(tmp_path):
    """How often each architecture was measured, by ranking folder."""
    counts = {}
    for folder in (tmp_path / "run" / "ranking").iterdir():
        texts = [t for file in folder.glob("measured-*.json") for t in json.loads(file.read_text())["measurements"]]
        counts[folder.name] = texts
    return counts


def test_a_benchmark_from_the_table_to_the_report(experiment, tmp_path):
    proxies = [{"kind": "zero_cost", "proxies": [name], "batch_size": 16} for name in ("naswot", "synflow")]
    config = experiment(proxies, sources=["synthetic", "noise", "real"], real={"kind": "digits"}, architectures=8)
    outcome = run(config)
    rows, result = result_of(outcome)
    sources = ("synthetic", "noise", "real (not data-free)")
    assert set(rows) == {"parameters", "macs", "synflow", *(f"naswot on {source}" for source in sources)}
    assert rows["synflow"]["images"] is None, "it asks for none, so the source cannot matter"
    assert len(rows["synflow"]["tau"]["per_seed"]) == 2
    assert all(rows["parameters"]["tau"][name] == pytest.approx(1) for name in ("mean", "low", "high"))
    assert rows["parameters"]["best"]
    assert rows["parameters"]["regret_1"]["mean"] == 0
    assert [title for title, row in rows.items() if not row["data_free"]] == ["naswot on real (not data-free)"]
    assert result["architectures"] == 8
    assert rows["naswot on noise"]["seconds_per_architecture"] > 0

    scores = pq.read_table(outcome.location.path + "/scores.parquet")
    assert scores.num_rows == 8
    first, second = (scores[f"naswot on synthetic, seed {seed}"].to_numpy() for seed in (0, 1))
    assert np.isfinite(first).all()
    assert not np.array_equal(first, second), "a seed stands for other images and weights"
    assert not np.array_equal(first, scores["naswot on noise, seed 0"].to_numpy())
    assert len(list((tmp_path / "run" / "synthesis").iterdir())) == 2, "a set of images for each root seed"

    page = (tmp_path / "run" / "report.html").read_text()
    assert 'id="benchmark"' in page
    assert "naswot on real (not data-free)" in page
    assert "No real image has been read" not in page
    ElementTree.fromstring((outcome.location / "benchmark.svg").read_bytes())


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("address", ["local"], indirect=True)
def test_a_benchmark_on_ray_measures_what_one_process_measures(experiment, tmp_path):
    proxy = {"kind": "zero_cost", "proxies": ["naswot"], "batch_size": 16}
    config = experiment([proxy, SPOS], sources=["synthetic"], seeds=[0], architectures=6)
    inline = {"cluster": config.cluster.model_copy(update={"address": "inline"}), "run_dir": str(tmp_path / "inline")}
    here, there = run(config.model_copy(update=inline)), run(config)
    ours, theirs = ((one.location / "scores.parquet").read_bytes() for one in (here, there))
    assert ours == theirs
    assert without_times(result_of(here)[0]) == without_times(result_of(there)[0])


def test_a_benchmark_that_broke_off_goes_on_and_measures_nothing_twice(experiment, tmp_path, monkeypatch, recorder):
    add, records = Recorded.add, []

    def breaking(self, *chunk):
        if len(records) == 3:
            raise KeyboardInterrupt
        records.append(chunk)
        add(self, *chunk)

    config = experiment([QUICK, SPOS], sources=["noise"])
    monkeypatch.setattr(Recorded, "add", breaking)
    with pytest.raises(KeyboardInterrupt):
        run(config)
    assert sum(map(len, measured(tmp_path).values())) == 9
    monkeypatch.undo()
    broken = run(config, recorder)
    assert "benchmark: 9 of 48 measurements are there already." in recorder.said
    for texts in measured(tmp_path).values():
        assert len(texts) == len(set(texts)) == 12

    other = config.model_copy(update={"run_dir": str(tmp_path / "undisturbed")})
    undisturbed = run(other)
    assert without_times(result_of(broken)[0]) == without_times(result_of(undisturbed)[0])


@pytest.mark.parametrize("address", ["inline"], indirect=True)
def test_with_one_worker_only_the_images_of_one_seed_are_held_at_the_same_time(experiment, held):
    run(experiment(SPOS, sources=["synthetic", "noise"], architectures=4))
    assert max(held) == 2


def test_what_was_measured_is_used_again_by_a_larger_benchmark(experiment, tmp_path, recorder):
    small = run(experiment(sources=["noise"], seeds=[0], architectures=4))
    (texts,) = measured(tmp_path).values()
    assert len(texts) == 4
    run(experiment(sources=["noise"], seeds=[0, 1], architectures=10), recorder)
    assert "benchmark: 4 of 20 measurements are there already." in recorder.said
    assert run(experiment(sources=["noise"], seeds=[0], architectures=4, chunk_size=7)).location == small.location
    assert run(experiment(sources=["noise"], seeds=[0], architectures=4, rows=[2, 9])).location != small.location
    for texts in measured(tmp_path).values():
        assert len(texts) == len(set(texts))


def test_what_a_sum_and_its_parts_have_in_common_is_measured_once(experiment, tmp_path):
    """Nor is a figure that does not depend on the images measured again for others."""
    names = (["naswot", "synflow"], ["synflow"], ["naswot"], ["synflow", "macs", "naswot"])
    proxies = [{"kind": "zero_cost", "proxies": each, "batch_size": 16} for each in names]
    outcome = run(experiment(proxies, sources=["synthetic", "noise"], seeds=[0], architectures=5))
    assert sorted(map(len, measured(tmp_path).values())) == [5, 5, 5, 5], "naswot twice, synflow and macs once"
    rows, _ = result_of(outcome)
    seconds = {title: row["seconds_per_architecture"] for title, row in rows.items()}
    assert seconds["naswot+synflow on noise"] == pytest.approx(seconds["naswot on noise"] + seconds["synflow"])
    scores = pq.read_table(outcome.location.path + "/scores.parquet").to_pydict()
    parts = zip(scores["naswot on noise, seed 0"], scores["synflow, seed 0"], strict=True)
    figures = [{"naswot": naswot, "synflow": synflow} for naswot, synflow in parts]
    assert scores["naswot+synflow on noise, seed 0"] == add_up_ranks(figures, ("naswot", "synflow"))


def test_what_is_measured_alike_is_ordered_by_each_criterion(experiment, tmp_path):
    alignment = {"kind": "alignment", "steps": 1, "batch_size": 16}
    both = [{**alignment, "criterion": criterion} for criterion in ("loss", "train_alignment")]
    together = result_of(run(experiment(both, sources=["noise"], seeds=[0], architectures=6)))[0]
    assert [len(texts) for texts in measured(tmp_path).values()] == [6]
    for number, algorithm in enumerate(both, start=1):
        alone = result_of(run(experiment(algorithm, sources=["noise"], seeds=[0], architectures=6)))[0]
        (row,) = [row for title, row in alone.items() if title.startswith("alignment")]
        (same,) = [row for title, row in together.items() if title.startswith(f"alignment-{number}")]
        assert row["tau"] == same["tau"]
        assert row["regret_1"] == same["regret_1"]


@pytest.mark.parametrize(
    ("algorithm", "other"),
    [
        pytest.param(QUICK, {"candidates": 7}, id="random_search"),
        pytest.param(SPOS, {"evolution": {"generations": 2}}, id="spos"),
        pytest.param({"kind": "zero_cost", "batch_size": 16}, {"evolution": {"generations": 2}}, id="zero_cost"),
        pytest.param({"kind": "alignment", "steps": 1, "batch_size": 16}, {"criterion": "loss"}, id="alignment"),
    ],
)
def test_settings_of_the_search_alone_measure_nothing_anew(experiment, recorder, algorithm, other):
    settings = {"sources": ["noise"], "seeds": [0]}
    run(experiment(algorithm, architectures=4, **settings))
    run(experiment({**algorithm, **other}, architectures=6, **settings), recorder)
    parts = 4 if algorithm["kind"] == "zero_cost" else 1
    assert f"benchmark: {4 * parts} of {6 * parts} measurements are there already." in recorder.said


def test_a_population_is_measured_together_and_ranked_by_how_far_it_came(experiment, tmp_path):
    halving = {
        "kind": "multi_fidelity",
        "batch_size": 16,
        "min_epochs": 1,
        "max_epochs": 4,
        "reduction_factor": 4,
        "concurrency": 1,
    }
    outcome = run(experiment(halving, sources=["noise"], seeds=[0], architectures=8))
    (folder,) = (tmp_path / "run" / "ranking").iterdir()
    (file,) = folder.glob("measured-*.json")
    measurements = json.loads(file.read_text())["measurements"]
    assert len(measurements) == 8
    epochs = {text: measurement["epochs"] for text, measurement in measurements.items()}
    assert set(epochs.values()) == {1.0, 4.0}, "some were stopped early"
    scores = pq.read_table(outcome.location.path + "/scores.parquet")
    (column,) = [name for name in scores.column_names if name.startswith("multi_fidelity")]
    ranked = dict(zip(scores["architecture"].to_pylist(), scores[column].to_pylist(), strict=True))
    assert min(ranked[t] for t in epochs if epochs[t] == 4) > max(ranked[t] for t in epochs if epochs[t] == 1)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("address", ["local"], indirect=True)  # in one process it is raised where it arose
def test_a_ranking_that_fails_is_named_with_what_to_do(experiment, tmp_path):
    config = experiment(SPOS, sources=["noise"], seeds=[0], architectures=3)
    run(config.model_copy(update={"cluster": config.cluster.model_copy(update={"address": "inline"})}))
    (state,) = (tmp_path / "run" / "ranking").glob("*/state.pt")
    state.unlink()
    state.mkdir()  # it can be neither read nor written
    with pytest.raises(DfnasError, match=r"ranking spos on noise, seed 0 failed.*is kept.*same command"):
        run(experiment(SPOS, sources=["noise"], seeds=[0], architectures=5))
