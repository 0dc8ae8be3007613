"""The set of regularisers."""

import pytest
from pydantic import ValidationError

from dfnas_ray.synthesis.regularizers import RegularizersConfig


def config(**weights):
    return RegularizersConfig.model_validate({name: {"weight": weight} for name, weight in weights.items()})


def test_the_defaults_are_the_published_ones_for_imagenet():
    active = RegularizersConfig().active()
    assert {name: weight for name, (weight, _) in active.items()} == {
        "bn_statistics": 0.01,
        "total_variation": 1e-4,
        "l2": 1e-5,
    }
    assert RegularizersConfig().bn_statistics.first_layer_multiplier == 10


@pytest.mark.parametrize("name", list(RegularizersConfig.model_fields))
def test_a_term_of_weight_zero_is_left_out(name):
    others = {other: 1.0 for other in RegularizersConfig.model_fields if other != name}
    assert set(config(**{name: 0}, **others).active()) == set(others)


@pytest.mark.parametrize("name", list(RegularizersConfig.model_fields))
def test_a_negative_weight_is_refused(name):
    with pytest.raises(ValidationError, match=rf"{name}\.weight"):
        config(**{name: -1})


def test_an_unknown_term_is_refused():
    with pytest.raises(ValidationError, match="bn_statistic"):
        config(bn_statistic=1)
