"""Tau, rho and regret against figures worked by hand."""

import math

import numpy as np
import pytest

from dfnas_ray.ranking import statistics
from dfnas_ray.ranking.statistics import (
    draw_resamples,
    kendall_tau,
    measure_agreement,
    regret,
    resampled_tau,
    spearman_rho,
)

NAN = math.nan


def rows(*values):
    return np.array([values], dtype=float)


@pytest.mark.parametrize(
    ("scores", "accuracies", "tau", "rho"),
    [
        # Of six pairs, (1, 2) alone is in the wrong order: tau = (5 - 1) / 6; squared rank differences sum up to 2.
        ((1, 2, 4, 3), (10, 20, 30, 40), 4 / 6, 1 - 6 * 2 / (4 * 15)),
        ((4, 3, 2, 1), (10, 20, 30, 40), -1, -1),
        # A tie among the scores: 5 pairs of 6 count for them, tau-b = 5 / sqrt(5 * 6). Ranks (1.5, 1.5, 3, 4) have the
        # variance 4.5 / 4, those of the accuracies 5 / 4, and covary by 4.5 / 4: rho = 4.5 / sqrt(4.5 * 5).
        ((1, 1, 2, 3), (10, 20, 30, 40), 5 / math.sqrt(30), math.sqrt(0.9)),
        # NaN is worst, here rightly so.
        ((NAN, 2, 3, 4), (10, 20, 30, 40), 1, 1),
        # Two NaN tie with each other and with minus infinity: 3 pairs of 6 count, all in the right order.
        ((NAN, NAN, -math.inf, 4), (10, 20, 30, 40), 3 / math.sqrt(18), 3 / math.sqrt(15)),
        # No order at all.
        ((1, 1, 1, 1), (10, 20, 30, 40), 0, 0),
        ((NAN, NAN, NAN, NAN), (10, 20, 30, 40), 0, 0),
        ((1, 2, 3, 4), (10, 10, 10, 10), 0, 0),
    ],
)
def test_correlations_equal_the_hand_worked_values(scores, accuracies, tau, rho):
    assert kendall_tau(rows(*scores), rows(*accuracies)) == pytest.approx([tau])
    assert spearman_rho(rows(*scores), rows(*accuracies)) == pytest.approx([rho])


@pytest.mark.parametrize("most", [0, 1_000], ids=["one by one", "in pairs"])
@pytest.mark.parametrize("ties", [1, 4, 30])
def test_tau_of_resamples_is_that_of_each_of_them(monkeypatch, ties, most):
    monkeypatch.setattr(statistics, "_MOST_IN_PAIRS", most)
    rng = np.random.default_rng(0)
    scores, accuracies = rng.integers(30 // ties, size=40).astype(float), rng.integers(12, size=40) / 7
    scores[:3] = NAN, -math.inf, math.inf
    resamples = draw_resamples(40, 0)[:50]
    expected = kendall_tau(scores[resamples], accuracies[resamples])
    assert resampled_tau(scores, accuracies, resamples) == pytest.approx(expected, abs=1e-12)
    alike = np.full((2, 40), 7)  # resamples of one architecture have no order
    assert resampled_tau(scores, accuracies, alike).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("scores", "top", "expected"),
    [
        ((1, 2, 3, 4), 1, 0.0),
        ((1, 2, 4, 3), 1, 10.0),
        ((1, 2, 4, 3), 2, 0.0),
        ((4, 3, 2, 1), 1, 30.0),
        ((4, 3, 2, 1), 2, 20.0),
        ((5, 5, 5, 5), 1, 30.0),  # a tie earns nothing
        ((1, 5, 5, 5), 2, 10.0),
        ((NAN, 1, NAN, NAN), 1, 20.0),  # NaN ranks last
        ((1, 2, 3, 4), 9, 0.0),  # fewer than nine
    ],
)
def test_regret_is_the_accuracy_that_the_highest_ranked_miss(scores, top, expected):
    assert regret(rows(*scores), rows(10, 20, 30, 40), top) == pytest.approx([expected])


def test_rows_are_compared_one_by_one():
    scores, accuracies = np.array([[1.0, 2, 3], [3, 2, 1]]), np.array([[1.0, 2, 3], [1, 2, 3]])
    assert kendall_tau(scores, accuracies) == pytest.approx([1, -1])
    assert spearman_rho(scores, accuracies) == pytest.approx([1, -1])
    assert regret(scores, accuracies, 1) == pytest.approx([0, 2])


def test_large_tables_get_fewer_resamples():
    assert [draw_resamples(n, 0).shape for n in (100, 2_000, 15_625)] == [(1000, 100), (1000, 2000), (200, 15_625)]


def test_intervals_of_a_known_correlation_cover_it_and_shrink_with_the_sample():
    """Of two normal variables with correlation r, tau is 2/pi arcsin r: 1/3 for r = 1/2."""
    rng = np.random.default_rng(0)
    width = {}
    for count in (100, 1_000):
        accuracies = rng.normal(size=count)
        scores = 0.5 * accuracies + math.sqrt(0.75) * rng.normal(size=(3, count))
        agreement = measure_agreement(scores, accuracies, draw_resamples(count, 0))
        assert agreement.tau.low < 1 / 3 < agreement.tau.high
        assert agreement.tau.low < agreement.tau.mean < agreement.tau.high
        assert agreement.tau.mean == pytest.approx(np.mean(agreement.tau.per_seed))
        width[count] = agreement.tau.high - agreement.tau.low
    assert 2 < width[100] / width[1_000] < 5  # the square root of ten, about


def test_a_difference_is_taken_on_the_same_resamples():
    """Two rankings that err alike differ surely, however uncertain each of them is."""
    rng = np.random.default_rng(1)
    accuracies = rng.normal(size=60)
    weak = (accuracies + 2 * rng.normal(size=60))[None]
    better = weak + 0.3 * accuracies
    resamples = draw_resamples(60, 0)
    baseline = measure_agreement(weak, accuracies, resamples)
    agreement = measure_agreement(better, accuracies, resamples, baseline)
    assert baseline.tau_gain is None
    gain = agreement.tau_gain
    assert gain.mean == pytest.approx(agreement.tau.mean - baseline.tau.mean)
    assert 0 < gain.low < gain.high
    assert agreement.tau.low < baseline.tau.high, "the intervals themselves overlap"
    same = measure_agreement(weak, accuracies, resamples, baseline).tau_gain
    assert (same.low, same.mean, same.high) == (0, 0, 0)


def test_one_seed_has_no_deviation_and_several_have_the_usual_one():
    accuracies = np.arange(4.0)
    scores = np.array([[0.0, 1, 2, 3], [3, 2, 1, 0]])  # tau 1 and -1
    resamples = draw_resamples(4, 0)
    assert measure_agreement(scores[:1], accuracies, resamples).tau.deviation == 0
    assert measure_agreement(scores, accuracies, resamples).tau.deviation == pytest.approx(math.sqrt(2))
