"""Ranges of swept settings: what they contain, and which are refused."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dfnas_ray.sweeps.ranges import Range


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "exactly one of uniform, log_uniform"),
        ({"uniform": [0, 1], "integer": [0, 1]}, "exactly one"),
        ({"uniform": [1, 1]}, r"uniform \(\[1.0, 1.0\]\) is empty: the first value must be below the second"),
        ({"integer": [3, 1]}, "integer .* is empty"),
        ({"log_uniform": [0, 1]}, r"log_uniform \(\[0.0, 1.0\]\) must begin above 0"),
        ({"log_integer": [0, 8]}, "log_integer .* must begin above 0"),
        ({"uniform": [0, math.inf]}, "must have finite ends"),
        ({"choice": [1]}, "needs at least two values"),
        ({"choice": [1, 2, 1]}, "names a value twice"),
    ],
)
def test_a_range_that_cannot_be_meant_is_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        Range.model_validate(values)


@given(st.floats(0, 1, exclude_max=True))
def test_quantiles_stay_in_the_range(u):
    assert 0.01 <= Range(log_uniform=(0.01, 100)).at(u) <= 100 * (1 + 1e-12)
    assert Range(integer=(1, 3)).at(u) in (1, 2, 3)
    assert Range(log_integer=(1, 64)).at(u) in range(1, 65)
    assert Range(choice=("a", "b")).at(u) in ("a", "b")


def test_the_median_of_a_log_range_is_its_geometric_mean():
    assert Range(log_uniform=(0.01, 100)).at(0.5) == pytest.approx(1.0)
    assert Range(uniform=(0, 4)).at(0.25) == pytest.approx(1.0)


def test_whole_numbers_are_equally_likely_at_both_ends():
    drawn = [Range(integer=(1, 4)).at((i + 0.5) / 400) for i in range(400)]
    assert [drawn.count(value) for value in (1, 2, 3, 4)] == [100] * 4


def test_choices_that_are_no_scalars_are_found_again():
    stages = [[{"scale": 1, "steps": 10}], [{"scale": 2, "steps": 5}, {"scale": 1, "steps": 5}]]
    range_ = Range(choice=stages)
    assert all(isinstance(category, str) for category in range_.categories)
    assert [range_.value(category) for category in range_.categories] == stages
