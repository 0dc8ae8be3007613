"""What every search algorithm promises in every space that it can search."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch

from dfnas_ray.algorithms.base import SearchProblem, SearchState
from dfnas_ray.storage.shards import SyntheticImages
from dfnas_ray.teachers.base import freeze_teacher
from dfnas_ray.teachers.digits import DigitsCNN
from dfnas_ray.training.batches import SyntheticBatches
from dfnas_ray.training.config import DistillationConfig

from .conftest import SMALL, kind_of

EVOLUTION = {"generations": 2, "population": 4, "parents": 2, "mutations": 2, "crossovers": 1}
SHORT = {
    "alignment": {"candidates": 6, "initial": 2, "round_size": 2, "steps": 1, "batches": 1, "validation_batches": 1}
    | {"batch_size": 16, "surrogate": {"trees": 5, "pool": 20}},
    "darts": {"epochs": 2, "batch_size": 16, "collapse": {"eigenvalue": False}},
    "multi_fidelity": {"candidates": 3, "max_epochs": 2, "reduction_factor": 2, "batch_size": 16},
    "proxyless": {"epochs": 3, "warmup_epochs": 1, "batch_size": 16},
    "random_search": {"candidates": 3, "round_size": 1, "epochs": 1, "batch_size": 16},
    "zero_cost": {"proxies": ("synflow", "zico", "az_nas"), "batch_size": 8, "evolution": EVOLUTION},
    "spos": {"epochs": 2, "batch_size": 16, "calibration_batches": 2, "evolution": EVOLUTION},
}


@pytest.fixture(scope="module")
def batches():
    torch.manual_seed(0)
    teacher = freeze_teacher("t", DigitsCNN(4), (1, 16, 16), (0.3,), (0.3,))
    rng = np.random.default_rng(0)
    data = SyntheticImages(
        images=rng.integers(0, 256, (64, 1, 18, 18), dtype=np.uint8),
        labels=np.zeros(64, np.int64),
        rounds=np.zeros(64, np.int64),
        logits=rng.normal(size=(64, 10)).astype(np.float32),
        ids=np.arange(64, dtype=np.uint64),
    )
    return SyntheticBatches(data, teacher, DistillationConfig(), 16, 0, torch.device("cpu"))


@pytest.fixture
def make_search(pair, batches):
    algorithm, space = pair
    config = algorithm(**SHORT.get(kind_of(algorithm), {}))

    def make(limit_share=None, seed=0):
        built = space(**SMALL.get(kind_of(space), {})).space((1, 16, 16), 10)
        limit = None
        if limit_share is not None:
            smallest = built.cost(built.cheapest()).macs
            draws = [built.cost(built.sample(np.random.default_rng(n))).macs for n in range(30)]
            limit = int(smallest + limit_share * (max(draws) - smallest))
        problem = SearchProblem(built, batches, batches, DistillationConfig(), limit, seed)
        return SearchState(config.algorithm(problem))

    return make


class Stop(Exception):  # noqa: N818 - it is no error
    pass


def test_a_search_that_stops_anywhere_ends_like_an_undisturbed_one(make_search):
    undisturbed = make_search()
    undisturbed.run()
    for stop_after in {1, len(undisturbed.history) - 1}:
        saved = io.BytesIO()

        def stop(state, saved=saved, stop_after=stop_after):
            if len(state.history) == stop_after:
                torch.save(state.state_dict(), saved)
                raise Stop

        with pytest.raises(Stop):
            make_search().run(stop)
        saved.seek(0)
        torch.manual_seed(1234)
        resumed = make_search()
        resumed.load_state_dict(torch.load(saved, weights_only=True))
        resumed.run()
        assert resumed.history == undisturbed.history
        assert resumed.algorithm.best() == undisturbed.algorithm.best()


def test_a_search_broken_off_within_an_epoch_or_a_round_ends_like_an_undisturbed_one(make_search, monkeypatch):
    undisturbed = make_search()
    undisturbed.run()
    served, built, saved = [], [], io.BytesIO()
    space = type(undisturbed.algorithm.space)
    epoch, build = SyntheticBatches.epoch, space.build

    def breaking(self, number):
        for batch in epoch(self, number):
            if len(served) == 6:  # somewhere within the second epoch or candidate
                raise Stop
            served.append(number)
            yield batch

    def breaking_untrained(self, genotype):
        if len(built) == 6:  # candidates that are never trained, or all on the same batches, take no more of them
            raise Stop
        built.append(genotype)
        return build(self, genotype)

    def keep(state):
        saved.seek(0)
        torch.save(state.state_dict(), saved)

    monkeypatch.setattr(SyntheticBatches, "epoch", breaking)
    monkeypatch.setattr(space, "build", breaking_untrained)
    with pytest.raises(Stop):
        make_search().run(keep)
    monkeypatch.undo()
    assert saved.tell()
    saved.seek(0)
    torch.manual_seed(99)
    resumed = make_search()
    resumed.load_state_dict(torch.load(saved, weights_only=True))
    resumed.run()
    assert resumed.history == undisturbed.history


def test_the_architecture_found_is_within_the_limit_and_can_be_built(make_search):
    state = make_search(limit_share=0.4)
    state.run()
    genotype, score = state.algorithm.best()
    problem = state.algorithm.problem
    assert problem.space.cost(genotype).macs <= problem.max_macs
    assert np.isfinite(score)
    problem.space.build(genotype)


def test_what_happened_is_recorded_as_json_numbers(make_search):
    state = make_search()
    state.run()
    for entry in state.history:
        assert entry["phase"] in ("training", "sampling")
        for value in entry.values():
            assert isinstance(value, str | int | float | list)


def test_finalists_are_different_architectures_within_the_limit_and_the_best_comes_first(make_search):
    search = make_search(limit_share=0.6)
    search.run()
    algorithm = search.algorithm
    finalists = algorithm.finalists(3)
    assert finalists[0] == algorithm.best()[0]
    assert 1 <= len(finalists) <= 3
    assert len(set(finalists)) == len(finalists)
    assert finalists == algorithm.finalists(3), "asked again, the same ones"
    assert algorithm.finalists(1) == finalists[:1]
    limit = algorithm.problem.max_macs
    assert all(algorithm.space.cost(genotype).macs <= limit for genotype in finalists)


def test_measurements_and_scores_do_not_depend_on_the_order_of_candidates(make_search):
    state = make_search()
    algorithm = state.algorithm
    if algorithm.config.cannot_rank:
        with pytest.raises(NotImplementedError):
            algorithm.scorer()
        return
    state.train()
    scorer = algorithm.scorer()
    rng = np.random.default_rng(3)
    candidates = list(dict.fromkeys(algorithm.space.sample(rng) for _ in range(4)))
    measured = scorer(candidates)
    assert all(isinstance(value, float) for measurement in measured for value in measurement.values())
    assert scorer(candidates[::-1]) == measured[::-1]
    scores = algorithm.rank(measured)
    assert len(scores) == len(candidates)
    assert algorithm.rank(measured[::-1]) == pytest.approx(scores[::-1])


def test_an_algorithm_says_whether_it_trains_before_it_compares_candidates(pair, make_search):
    trains_candidates = getattr(
        pair[0], "measures_population", False
    )  # and compares them: not before all images are there
    assert make_search().algorithm.is_training == (pair[0].trains_by_epochs or trains_candidates)
