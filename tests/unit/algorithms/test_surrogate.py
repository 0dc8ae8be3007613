"""The forest: it finds a planted best, and is the same whenever it is grown anew."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dfnas_ray.algorithms.surrogate import ForestSurrogate, SurrogateConfig

CHOICES = (4,) * 5
PLANTED = (2, 0, 3, 1, 2)


def draw(count, seed):
    rng = np.random.default_rng(seed)
    return list(dict.fromkeys(tuple(int(n) for n in rng.integers(0, 4, 5)) for _ in range(count)))


def score(genotype):
    """Options have no order: only whether they are the planted ones counts, the first decision most."""
    return sum(weight * (a == b) for weight, a, b in zip((5, 3, 2, 2, 1), genotype, PLANTED, strict=True))


def grown(genotypes, scores, seed=0, **settings):
    forest = ForestSurrogate(CHOICES, SurrogateConfig(trees=50, **settings), seed)
    forest.fit(genotypes, scores)
    return forest


def test_the_planted_best_of_a_pool_is_proposed_unseen():
    known = [genotype for genotype in draw(150, 0) if genotype != PLANTED]
    pool = [genotype for genotype in draw(200, 1) if genotype not in known and genotype != PLANTED]
    proposed = grown(known, [score(g) for g in known]).propose([*pool, PLANTED], 5)
    assert proposed[0] == PLANTED
    assert min(map(score, proposed)) > np.quantile([score(g) for g in pool], 0.9)


def test_a_forest_grown_anew_is_the_same_and_only_the_order_of_scores_counts():
    known, pool = draw(60, 0), draw(40, 1)
    scores = [score(g) for g in known]
    predicted = grown(known, scores).predict(pool)
    assert np.array_equal(grown(known, scores).predict(pool), predicted)
    assert np.array_equal(grown(known, [math.exp(s) - 100 for s in scores]).predict(pool), predicted)
    assert not np.array_equal(grown(known, scores, seed=1).predict(pool), predicted)
    assert ((predicted > 0) & (predicted <= 1)).all()


def test_candidates_that_could_not_be_measured_are_avoided():
    known = draw(80, 0)
    forest = grown(known, [math.nan if g[0] == 0 else 1.0 for g in known])
    guesses = {broken: forest.predict([g for g in draw(50, 1) if (g[0] == 0) is broken]) for broken in (True, False)}
    assert guesses[True].max() < guesses[False].min()


def test_a_high_quantile_hopes_for_more_than_a_low_one():
    known, pool = draw(40, 0), draw(40, 1)
    scores = [score(g) for g in known]
    low, high = (grown(known, scores, quantile=q).predict(pool) for q in (0.1, 0.9))
    assert (high >= low).all()
    assert (high > low).any()


def test_nothing_is_proposed_of_an_empty_pool():
    assert grown(draw(10, 0), [0.0] * len(draw(10, 0))).propose([], 3) == []


@pytest.mark.parametrize("setting", [{"quantile": 1.0}, {"exploration": 1.5}, {"trees": 0}])
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        SurrogateConfig(**setting)
