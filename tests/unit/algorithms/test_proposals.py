"""Optuna proposes architectures: new ones within the limit, and it learns from short trainings what they are worth."""

from __future__ import annotations

import math

import pytest
from optuna.trial import TrialState

from dfnas_ray.algorithms.multi_fidelity import Candidate, MultiFidelityConfig, Population
from dfnas_ray.algorithms.proposals import ArchitectureStudy
from dfnas_ray.search_spaces import NASBench201Config, NASBenchMacroConfig
from dfnas_ray.training.student import Validation

CONFIG = MultiFidelityConfig(candidates=12, proposals="tpe", min_epochs=1, max_epochs=4, reduction_factor=2)


@pytest.fixture(scope="module")
def space():
    """81 architectures of four layers."""
    config = NASBenchMacroConfig(stem_channels=4, stage_layers=(2, 2), stage_channels=(8, 16), head_channels=16)
    return config.space((1, 16, 16), 10)


def candidate(number, genotype, *losses, stopped=False):
    made = Candidate(number, genotype, is_stopped=stopped)
    for epochs, loss in zip(CONFIG.rungs, losses, strict=False):
        made.add(epochs, Validation(loss, 0.5))
    return made


def searcher(space, *candidates, max_macs=None, seed=0):
    return ArchitectureStudy(Population(CONFIG, candidates), space, max_macs, seed)


def drive(study, count, loss_of):
    """Let each proposal reach the highest rung at once."""
    proposed = []
    for _ in range(count):
        given = study.propose()
        proposed.append(given)
        study.end(given.number, 4, -loss_of(given.genotype))
    return proposed


def test_proposals_are_new_within_the_limit_and_numbered(space):
    limit = space.cost(space.decode("1111")).macs
    proposed = drive(searcher(space, max_macs=limit), 12, lambda text: 1.0)
    texts = [given.genotype for given in proposed]
    assert len(set(texts)) == 12
    assert [given.number for given in proposed] == list(range(12))
    assert all(space.cost(space.decode(text)).macs <= limit for text in texts)


def test_the_first_proposals_are_those_of_a_random_search(space):
    texts = [given.genotype for given in drive(searcher(space), 4, lambda text: 1.0)]
    assert texts == [space.encode(genotype) for genotype in CONFIG.draw(space, None, 0)[:4]]


def test_proposals_come_nearer_to_what_is_good():
    cells = NASBench201Config(channels=4, cells_per_stage=1).space((1, 16, 16), 10)  # 15,625
    wrong = [
        sum(choice != 3 for choice in cells.decode(given.genotype))
        for given in drive(searcher(cells), 40, lambda text: sum(choice != 3 for choice in cells.decode(text)))
    ]
    assert sum(wrong[25:]) / 15 < sum(wrong[:10]) / 10 - 1


def test_a_space_that_is_known_altogether_ends_the_search(space):
    cheapest = space.cost(space.cheapest()).macs
    search = searcher(space, max_macs=cheapest)
    drive(search, 1, lambda text: 1.0)
    assert search.propose() is None


def test_after_a_break_open_candidates_come_first_under_their_numbers(space):
    over, stopped = candidate(0, "0000", 3, 2, 1), candidate(1, "1111", 4, stopped=True)
    begun, half = candidate(3, "2222"), candidate(5, "0120", 2)
    search = searcher(space, over, stopped, begun, half)
    given = [search.propose() for _ in range(3)]
    assert given[:2] == [(3, "2222"), (5, "0120")]
    assert given[2].number == 6
    assert given[2].genotype not in ("0000", "1111", "2222", "0120")


def test_the_study_is_told_what_was_stopped_as_pruned_and_never_a_short_value_as_final(space):
    told = [
        candidate(0, "0000", 3, 2, 1),
        candidate(1, "1111", 4, stopped=True),
        candidate(2, "2222", 3, math.nan),
    ]
    search = searcher(space, *told)
    for epochs, score in ((1, -5.0), (2, math.nan), (4, -1.5)):
        given = search.propose()
        if epochs == 2:
            search.observe(given.number, 1, -5.5)
            search.observe(given.number, 1, -5.5)  # told again after a break
        search.end(given.number, epochs, score)
    trials = [trial for trial in search.study.trials if trial.state.is_finished()]
    pruned, complete = TrialState.PRUNED, TrialState.COMPLETE
    assert [trial.state for trial in trials] == [complete, pruned, pruned, pruned, pruned, complete]
    assert [trial.intermediate_values for trial in trials[:5]] == [
        {1: -3, 2: -2, 4: -1},
        {1: -4},
        {1: -3},
        {1: -5},
        {1: -5.5},
    ]
    assert [trials[0].value, trials[5].value] == [-1, -1.5]
