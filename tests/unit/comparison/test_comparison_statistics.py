"""Paired differences and McNemar's test against figures of textbooks."""

import numpy as np
import pytest
import scipy

from dfnas_ray.comparison.statistics import Spread, mcnemar


def test_the_interval_over_seeds_is_students():
    spread = Spread.over_seeds([1.0, 2.0, 3.0, 4.0])
    assert spread.mean == 2.5
    assert spread.deviation == pytest.approx(1.2910, abs=1e-4)
    half = 3.1824 * 1.2910 / 2  # t of three degrees of freedom at 97.5 %
    assert (spread.low, spread.high) == (pytest.approx(2.5 - half, abs=1e-3), pytest.approx(2.5 + half, abs=1e-3))
    assert not Spread.over_seeds([-1.0, 2.0, 3.0]).excludes_zero
    assert Spread.over_seeds([2.0, 2.1, 2.2]).excludes_zero


def test_one_seed_has_no_interval_and_equal_ones_have_a_point():
    alone = Spread.over_seeds([3.0])
    assert (alone.mean, alone.low, alone.high, alone.excludes_zero) == (3.0, None, None, False)
    alike = Spread.over_seeds([0.5, 0.5, 0.5])
    assert (alike.low, alike.high, alike.excludes_zero) == (0.5, 0.5, True)


def test_resamples_give_the_interval():
    spread = Spread.resampled([0.7, 0.8], np.linspace(0, 1, 1001))
    assert (spread.mean, spread.low, spread.high) == (0.75, pytest.approx(0.025), pytest.approx(0.975))


def test_mcnemar_is_the_exact_binomial():
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 5) == 1.0
    assert mcnemar(0, 5) == pytest.approx(2 / 2**5)
    assert mcnemar(1, 9) == pytest.approx(2 * (1 + 10) / 2**10)
    assert mcnemar(1, 9) == mcnemar(9, 1)
    for pair in ((0, 1), (3, 4), (4, 4), (17, 40), (400, 470)):
        assert mcnemar(*pair) == pytest.approx(scipy.stats.binomtest(pair[0], sum(pair), 0.5).pvalue, rel=1e-9)
