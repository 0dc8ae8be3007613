from collections import Counter

import pytest

from dfnas_ray.algorithms import Evolution, EvolutionConfig
from dfnas_ray.errors import GenotypeError
from dfnas_ray.search_spaces import NASBenchMacroConfig

SPACE = NASBenchMacroConfig(stem_channels=4, stage_layers=(2, 2), stage_channels=(8, 16), head_channels=16).space(
    (1, 16, 16), 10
)


def evolve(limit=None, generations=6, seed=0, **settings):
    sizes = {"population": 10, "parents": 4, "mutations": 5, "crossovers": 5, **settings}
    return Evolution(SPACE, EvolutionConfig(generations=generations, **sizes), limit, seed)


def score(genotype):
    return -sum((choice - 1) ** 2 for choice in genotype)  # best at 1111


def run(evolution):
    asked = []
    while not evolution.is_finished:
        asked.append(evolution.ask())
        evolution.tell([score(genotype) for genotype in asked[-1]])
    return asked


def test_evolution_finds_the_best_of_a_simple_score():
    evolution = evolve()
    run(evolution)
    assert SPACE.encode(evolution.best()) == "1111"


def test_evolution_stays_within_the_limit_and_scores_nothing_twice():
    limit = SPACE.cost(SPACE.decode("1111")).macs
    asked = [genotype for generation in run(evolve(limit, generations=30)) for genotype in generation]
    assert all(SPACE.cost(genotype).macs <= limit for genotype in asked)
    assert max(Counter(asked).values()) == 1  # 30 generations ask for more than the 81 architectures there are


def test_a_score_that_is_not_a_number_is_the_worst_also_when_it_is_told_anew():
    evolution = evolve(population=2, mutations=1, crossovers=1)
    first, second = evolution.ask()
    evolution.tell([1.0, 2.0])
    assert evolution.best() == second
    evolution.update_scores({second: float("nan")})
    assert evolution.ranked() == [first, second]


def test_what_is_awaited_is_not_drawn_anew():
    evolution = evolve()
    assert evolution.asked == []
    asked = evolution.ask()
    assert evolution.asked == asked
    evolution.tell([0.0] * len(asked))
    assert evolution.asked == []


def test_evolution_asked_twice_answers_the_same():
    evolution = evolve()
    assert evolution.ask() == evolution.ask()


def test_evolution_goes_on_from_its_state_as_if_undisturbed():
    undisturbed = run(evolve())
    first, second = evolve(), evolve(seed=99)
    for _ in range(2):
        first.tell([score(genotype) for genotype in first.ask()])
    first.ask()
    second.load_state_dict(first.state_dict())
    assert run(second) == undisturbed[2:]


def test_a_limit_that_nothing_meets_is_refused_with_the_smallest():
    with pytest.raises(GenotypeError, match="smallest architecture"):
        evolve(limit=1)


def test_a_score_that_is_not_a_number_is_the_worst():
    evolution = evolve(generations=1)
    asked = evolution.ask()
    evolution.tell([float("nan")] + [-5.0] * (len(asked) - 1))
    assert evolution.best() == asked[1]
