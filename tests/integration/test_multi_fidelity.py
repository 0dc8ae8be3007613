"""Multi-fidelity searches on real Ray: weak candidates are stopped, and nothing is trained twice."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import ray
import torch

from dfnas_ray.algorithms.config import Trial
from dfnas_ray.algorithms.multi_fidelity import MultiFidelityConfig
from dfnas_ray.algorithms.stand_alone import CandidateTraining
from dfnas_ray.algorithms.trials import SearchJob, make_batches
from dfnas_ray.config.experiment import make_experiment
from dfnas_ray.execution.ray.board import ProgressBoard
from dfnas_ray.execution.ray.population import measure_population
from dfnas_ray.execution.ray.stored import Stored
from dfnas_ray.search_spaces import NASBenchMacroConfig
from dfnas_ray.seeding import derive_seed, fixed_threads
from dfnas_ray.storage.arrivals import WholeSet
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.shards import SyntheticImages
from dfnas_ray.workflow import run as order
from dfnas_ray.workflow.session import Session

pytestmark = pytest.mark.ray

SPACE = {"stem_channels": 4, "stage_layers": (2, 2), "stage_channels": (8, 16), "head_channels": 16}
SEARCH = {"kind": "multi_fidelity", "candidates": 8, "max_epochs": 4, "reduction_factor": 2, "batch_size": 16}


@pytest.fixture(scope="module")
def board(ray_cluster):
    """One for all: it is a process."""
    return ProgressBoard()


@pytest.fixture
def population(ray_cluster, board, tiny_experiment, tmp_path):
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
    shared, images = Stored(ray.put(teacher)), Stored(ray.put(data))
    space = NASBenchMacroConfig(**SPACE)

    def training(text, algorithm):
        job = SearchJob(config.search, config.cluster.search, 0, None, Location.parse(tmp_path))
        seed = derive_seed(0, "search", 0)
        whole = WholeSet(data)
        batches = make_batches(job, teacher, data, whole, algorithm.batch_size, seed, torch.device("cpu"))
        built = space.space(teacher.image_shape, teacher.num_classes)
        return CandidateTraining(
            built,
            built.decode(text),
            batches.train,
            batches.validation,
            config.search.distillation,
            algorithm.optimizer,
            algorithm.rungs,
            seed,
            "auto",
        )

    def measure(texts, folder="population", **settings):
        algorithm = MultiFidelityConfig(**{**SEARCH, **settings})
        place = Location.parse(tmp_path / folder).make_dir()
        job = SearchJob(config.search, config.cluster.search, 0, None, place)
        trial = Trial("trial", algorithm, space, 0)
        built = space.space(teacher.image_shape, teacher.num_classes)
        genotypes = [built.decode(text) for text in texts]
        measured = measure_population(job, trial, genotypes, shared, images, board)
        return algorithm, measured, tmp_path / folder / "trial"

    measure.training = training
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


@pytest.mark.slow
def test_a_candidate_that_broke_off_goes_on_from_its_last_epoch(population, tmp_path):
    config, undisturbed, folder = population(["0000", "2222"], min_epochs=2)
    assert undisturbed[0]["epochs"] == config.max_epochs or undisturbed[1]["epochs"] == config.max_epochs
    left = tmp_path / "left" / "trial"
    left.mkdir(parents=True)
    # What a killed command leaves: one candidate that is over, and one in its second epoch before the first rung.
    over = json.loads((folder / "candidate-00000.json").read_text())
    (left / "candidate-00000.json").write_text(json.dumps(over))
    begun = {"number": 1, "genotype": "2222", "results": [], "is_stopped": False}
    (left / "candidate-00001.json").write_text(json.dumps(begun))
    training = population.training("2222", config)
    with fixed_threads(1):
        training.train_epoch()
    torch.save(training.state_dict(), left / "candidate-00001.pt")
    _, resumed, _ = population(["0000", "2222"], "left", min_epochs=2)
    first = [json.loads((f / "candidate-00001.json").read_text())["results"][0] for f in (folder, left)]
    assert first[0] == first[1], "as if it had never stopped"
    assert resumed[0] == undisturbed[0]

    for weights in training.network.parameters():
        weights.data.fill_(math.nan)
    torch.save(training.state_dict(), left / "candidate-00001.pt")
    (left / "candidate-00001.json").write_text(json.dumps(begun))
    assert math.isnan(population(["0000", "2222"], "left", min_epochs=2)[1][1]["score"]), (
        "the state is what it goes on from"
    )


def test_a_diverging_candidate_is_reported_and_ranks_nowhere(population):
    config, measured, _ = population(["0000", "1111"], optimizer={"lr": 1e30, "clip_norm": 1e30, "warmup_fraction": 0})
    assert all(math.isnan(measurement["score"]) for measurement in measured)
    assert all(math.isnan(score) for score in config.rank(measured))


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"proposals": "tpe"}, id="tpe"),
        pytest.param({"scheduler": "hyperband"}, id="hyperband"),
    ],
)
@pytest.mark.slow
def test_a_search_beside_another_ends_in_the_same_records(ray_cluster, tiny_values, tmp_path, settings):
    values = tiny_values()
    spos = values["search"]["algorithm"]
    values["search"]["algorithm"] = [{**SEARCH, **settings, "candidates": 6}, spos]
    values["search"] |= {"seeds": [0], "max_macs": 100_000}
    config = make_experiment({**values, "run_dir": str(tmp_path)})
    with Session(config).opened() as session:
        order.synthesize(session)
        outcome = order.search(session)
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
