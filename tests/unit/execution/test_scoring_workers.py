"""The workers that score a trial's candidates beside the trial itself."""

from __future__ import annotations

import shutil

import pytest
import ray
import torch

from dfnas_ray.config.cluster import SearchResources
from dfnas_ray.execution.ray.trials import ScoringWorkers
from dfnas_ray.workflow import run as order
from dfnas_ray.workflow.session import Session


@pytest.fixture
def workers(ray_cluster):
    class Scorer:
        """It says where each candidate was scored."""

        def __call__(self, genotypes):
            import os

            return [{"score": float(genotype), "process": float(os.getpid())} for genotype in genotypes]

        def to(self, device):
            self.device = device

    resources = SearchResources(scoring_workers=1, cpus=1, attempts=2)
    made = ScoringWorkers(Scorer(), resources, torch.device("cpu"))
    yield made
    made.end()


def test_candidates_are_spread_and_keep_their_order(workers):
    for _ in range(2):
        measured = workers([3, 1, 4, 1, 5])
        assert [each["score"] for each in measured] == [3, 1, 4, 1, 5]
        assert len({each["process"] for each in measured[::2]}) == 1
        assert {each["process"] for each in measured[::2]}.isdisjoint(each["process"] for each in measured[1::2])
    assert [each["score"] for each in workers([7])] == [7]


def test_a_worker_that_died_is_replaced(workers, caplog):
    workers([1, 2])
    actor = workers._actors[0]
    ray.kill(actor)
    with pytest.raises(ray.exceptions.RayActorError):  # it may answer until the signal has come
        list(iter(lambda: ray.get(actor.measure.remote([1])), None))
    assert [each["score"] for each in workers([1, 2])] == [1, 2]
    assert "A worker that scores candidates died" in caplog.text
    assert "attempt 2 of 2 follows" in caplog.text


def test_workers_end_with_their_trial(workers):
    actor = workers._actors[0]
    workers.end()
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(actor.measure.remote([1]), timeout=30)


@pytest.mark.slow
def test_a_search_with_further_workers_finds_the_same(tiny_run, tiny_experiment, tmp_path):
    for name in ("teacher", "synthesis", "latest.json"):
        copy = shutil.copytree if (tiny_run.folder / name).is_dir() else shutil.copy
        copy(tiny_run.folder / name, tmp_path / name)
    with Session(tiny_experiment(tmp_path, "cluster.search.scoring_workers=1")).opened() as session:
        outcome = order.search(session)
    assert not outcome.reused
    results = {file.parent.name: file.read_bytes() for file in tmp_path.glob("search/*/*/result.json")}
    assert results == {file.parent.name: file.read_bytes() for file in tiny_run.folder.glob("search/*/*/result.json")}
