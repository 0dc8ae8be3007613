"""Multi-fidelity searches on real Ray: weak candidates are stopped, and nothing is trained twice."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import ray

from dfnas_ray.algorithms.config import Trial
from dfnas_ray.algorithms.multi_fidelity import MultiFidelityConfig
from dfnas_ray.distributed import multi_fidelity
from dfnas_ray.distributed.board import ProgressBoard
from dfnas_ray.distributed.search_trials import SearchJob
from dfnas_ray.pipeline import Pipeline
from dfnas_ray.search_spaces import NASBenchMacroConfig
from dfnas_ray.seeding import fixed_threads
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.shards import SyntheticImages

pytestmark = pytest.mark.ray

SPACE = {"stem_channels": 4, "stage_layers": (2, 2), "stage_channels": (8, 16), "head_channels": 16}
SEARCH = {"kind": "multi_fidelity", "candidates": 8, "max_epochs": 4, "reduction_factor": 2, "batch_size": 16}


@pytest.fixture
def population(ray_cluster, tiny_experiment, tmp_path):
    """Return a function that measures genotypes as one population of the tiny experiment."""
    config = tiny_experiment(tmp_path)
    with fixed_threads(1):
        teacher = config.teacher.load(tmp_path)
    rng = np.random.default_rng(0)
    data = SyntheticImages(
        images=rng.integers(0, 256, (80, 1, 18, 18), dtype=np.uint8),
        labels=np.zeros(80, np.int64),
        rounds=np.zeros(80, np.int64),
        logits=rng.normal(size=(80, 10)).astype(np.float32),
        ids=np.arange(80, dtype=np.uint64),
    )
    images = ray.put(data)
    space = NASBenchMacroConfig(**SPACE)

    def measure(texts, folder="population", **settings):
        algorithm = MultiFidelityConfig(**{**SEARCH, **settings})
        job = SearchJob(config.search, config.cluster.search, 0, None, Location.parse(tmp_path / folder))
        trial = Trial("trial", algorithm, space, 0)
        built = space.space(teacher.image_shape, teacher.num_classes)
        genotypes = [built.decode(text) for text in texts]
        measured = multi_fidelity.measure_population(job, trial, genotypes, teacher, images, ProgressBoard())
        return algorithm, measured, tmp_path / folder / "trial"

    return measure


def test_weak_candidates_are_stopped_and_their_networks_deleted(population):
    texts = ["0000", "1111", "2222", "0120", "2100", "1212", "0000", "2002"]
    config, measured, folder = population(texts)
    assert measured[0] == measured[6], "given twice, trained once"
    epochs = [measurement["epochs"] for measurement in measured]
    assert set(epochs) <= set(config.rungs)
    assert min(epochs) < max(epochs) == config.max_epochs
    candidates = [json.loads(file.read_text()) for file in sorted(folder.glob("candidate-*.json"))]
    assert len(candidates) == 7
    for candidate in candidates:
        reached = [result["epochs"] for result in candidate["results"]]
        assert reached == list(config.rungs[: len(reached)])
        assert candidate["is_stopped"] == (reached[-1] < config.max_epochs)
    assert not list(folder.glob("*.pt"))

    before = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert population(texts)[1] == measured
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == before, "nothing is done again"


def test_a_candidate_that_broke_off_goes_on_and_scores_as_if_undisturbed(population):
    texts = ["0000", "2222"]
    _, undisturbed, folder = population(texts, "undisturbed", min_epochs=2, max_epochs=4)
    _, _, first = population(texts, "broken", min_epochs=1, max_epochs=2)
    file = first / "candidate-00001.json"
    # What a killed command leaves: one candidate at its first rung, its network beside it.
    results = json.loads((folder / "candidate-00001.json").read_text())["results"]
    assert math.isfinite(results[0]["loss"])
    other = folder.parent.parent / "resumed" / "trial"
    other.mkdir(parents=True)
    (other / "candidate-00000.json").write_text((folder / "candidate-00000.json").read_text())
    left = json.loads((folder / "candidate-00001.json").read_text())
    (other / "candidate-00001.json").write_text(
        json.dumps({**left, "results": left["results"][:1], "is_stopped": False})
    )
    _, resumed, _ = population(texts, "resumed", min_epochs=2, max_epochs=4)
    assert resumed == undisturbed
    assert file.exists()


def test_a_diverging_candidate_is_reported_and_ranks_nowhere(population):
    config, measured, _ = population(["0000", "1111"], optimizer={"lr": 1e30, "clip_norm": 1e30, "warmup_fraction": 0})
    assert all(math.isnan(measurement["score"]) for measurement in measured)
    assert all(math.isnan(score) for score in config.rank(measured))


@pytest.mark.parametrize("settings", [{"proposals": "tpe"}, {"scheduler": "hyperband"}], ids=["tpe", "hyperband"])
def test_a_search_beside_another_ends_in_the_same_records(ray_cluster, tiny_values, tiny_run, tmp_path, settings):
    from dfnas_ray.experiment import make_experiment

    values = tiny_values()
    spos = values["search"]["algorithm"]
    values["search"]["algorithm"] = [{**SEARCH, **settings, "candidates": 6}, spos]
    values["search"] |= {"seeds": [0], "max_macs": 100_000}
    config = make_experiment({**values, "run_dir": str(tmp_path)})
    with Pipeline(config).opened() as pipeline:
        outcome = pipeline.run("search")["search"]
    trials = json.loads(next(tmp_path.glob("search/*/trials.json")).read_text())
    assert [trial["algorithm"] for trial in trials] == ["multi_fidelity", "spos"]
    mine = trials[0]
    rungs = mine["history"]
    assert [entry["epochs"] for entry in rungs] == [1, 2, 4]
    assert len(rungs[0]["genotypes"]) == len(set(rungs[0]["genotypes"])) == 6
    assert mine["own_score"] == rungs[-1]["best"]
    assert mine["macs"] <= 100_000
    assert all(finalist["macs"] <= 100_000 for finalist in mine["finalists"])
    assert outcome.summary["trials"][0]["genotype"] == mine["genotype"]
