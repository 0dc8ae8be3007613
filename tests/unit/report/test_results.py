"""Intervals, the comparison and its sentence."""

import pytest

from dfnas_ray.report.results import compare, verdict, wilson_interval
from dfnas_ray.workflow.evaluation import EvaluationRecord, MeasuredNetwork


def test_wilson_interval_equals_the_hand_computed_value():
    # p = 0.8, n = 10, z = 1.959964: centre (0.8 + 0.192073) / 1.384146, margin 1.959964 sqrt(0.016 + 0.0096036) / 1.384146
    low, high = wilson_interval(0.8, 10)
    assert low == pytest.approx(0.490162, abs=1e-6)
    assert high == pytest.approx(0.943318, abs=1e-6)


def test_wilson_interval_stays_within_shares_and_is_not_empty_at_the_ends():
    low, high = wilson_interval(1.0, 20)
    assert high == 1.0
    assert low == pytest.approx(20 / (20 + 1.959964**2), abs=1e-6)
    assert wilson_interval(0.0, 20)[0] == pytest.approx(0, abs=1e-12)


def test_wilson_interval_refuses_no_images():
    with pytest.raises(ValueError, match="num_images"):
        wilson_interval(0.5, 0)


def compared(num_images, **accuracy):
    networks = {
        name: MeasuredNetwork(architecture=name, accuracy=value, params=10, macs=100)
        for name, value in accuracy.items()
    }
    return compare(EvaluationRecord(networks=networks, images=num_images, dataset="d"))


def networks(searched, random, num_images):
    return compared(num_images, baseline=random, retraining=searched, teacher=0.99)


def test_rows_stand_in_the_order_of_roles_and_one_that_is_unknown_comes_last():
    rows = compared(10, future=0.4, baseline=0.5, retraining=0.6, teacher=0.7).rows
    assert [row.title for row in rows] == ["Teacher", "Searched", "Random, same budget", "Future"]
    assert [row.short for row in rows] == ["teacher", "searched", "random network", "future"]
    assert [row.is_main for row in rows] == [False, True, False, False]


def test_the_sentence_says_whether_the_images_suffice():
    assert "do not overlap" in verdict(networks(0.95, 0.80, 10_000))
    assert "100 images cannot tell" in verdict(networks(0.85, 0.80, 100))
    assert "−4.0 points against its teacher and +15.0 points" in verdict(networks(0.95, 0.80, 10_000))


def test_every_interval_lies_on_the_axis():
    comparison = networks(0.4, 1.0, 7)
    for row in comparison.rows:
        assert 0 <= row.start <= row.position <= row.start + row.width + 0.01 <= 100.02


def test_without_a_teacher_nothing_is_relative_to_it():
    comparison = compared(10, retraining=0.5)
    assert comparison.rows[0].relative_macs is None
    assert verdict(comparison).startswith("The searched network classifies")
