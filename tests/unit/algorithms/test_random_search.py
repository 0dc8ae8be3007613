"""Random search: new architectures only, within the limit, the best by training alone."""

from __future__ import annotations

from dfnas_ray.algorithms.base import SearchState
from dfnas_ray.algorithms.random_search import RandomSearchConfig


def make_random(problem, **settings):
    return RandomSearchConfig(
        **{"candidates": 6, "round_size": 4, "epochs": 1, "batch_size": 16, **settings}
    ).algorithm(problem)


def test_candidates_are_new_within_the_limit_and_as_many_as_asked(chain, make_problem):
    limit = chain.cost(chain.decode("1111")).macs
    search, asked = make_random(make_problem(chain, max_macs=limit)), []
    while not search.is_finished:
        asked.append(search.ask())
        assert search.ask() == asked[-1]
        search.tell([{"score": float(sum(genotype))} for genotype in asked[-1]])
    flat = [genotype for round_ in asked for genotype in round_]
    assert [len(round_) for round_ in asked] == [4, 2]
    assert len(set(flat)) == 6
    assert all(chain.cost(genotype).macs <= limit for genotype in flat)
    assert search.best() == (max(flat, key=sum), float(max(map(sum, flat))))


def test_an_exhausted_space_ends_the_search(chain, make_problem):
    limit = chain.cost(chain.cheapest()).macs
    search = make_random(make_problem(chain, max_macs=limit), candidates=50)
    while not search.is_finished:
        search.tell([{"score": 0.0}] * len(search.ask()))
    assert 1 <= len(search.scores) < 50


def test_a_candidates_score_does_not_depend_on_the_others(chain, make_problem):
    scorer = make_random(make_problem(chain)).scorer()
    first, second = chain.decode("1111"), chain.decode("0000")
    assert scorer([first, second]) == [scorer([first])[0], scorer([second])[0]]


def test_the_state_machine_runs_it_without_training(chain, make_problem):
    state = SearchState(make_random(make_problem(chain)))
    state.run()
    assert [entry["phase"] for entry in state.history] == ["sampling", "sampling"]
