"""Settings of the inversion: what they are worth, and errors that name the way out."""

import pytest
from pydantic import ValidationError

from dfnas_ray.synthesis.config import SynthesisConfig
from dfnas_ray.synthesis.inversion.config import ScaleConfig
from dfnas_ray.synthesis.inversion.synthesizer import InversionConfig
from dfnas_ray.synthesis.settings import SetSettings


def scales(*factors, steps=200):
    return tuple(ScaleConfig(scale=factor, steps=steps) for factor in factors)


def canvas(height, width, canvas_margin=None, **method):
    return InversionConfig(**method).canvas_size(SetSettings(canvas_margin=canvas_margin), height, width)


def test_the_defaults_are_the_published_schedule():
    config = InversionConfig()
    assert [(scale.scale, scale.steps) for scale in config.scales] == [(2, 2000), (1, 3000)]
    assert (config.lr, config.warmup_steps, config.tau) == (0.25, 100, 1.0)


def test_scales_end_at_full_size():
    with pytest.raises(ValidationError, match="scales must end at scale 1, the teacher's own size, not 2"):
        InversionConfig(scales=scales(1, 2))


@pytest.mark.parametrize("warmup", [50, 60])
def test_a_warm_up_as_long_as_a_scale_names_both(warmup):
    with pytest.raises(ValidationError, match=rf"warmup_steps \({warmup}\) must be less than .*\(50 the fewest\)"):
        InversionConfig(scales=(*scales(2, steps=50), *scales(1)), warmup_steps=warmup)
    InversionConfig(scales=(*scales(2, steps=50), *scales(1)), warmup_steps=49)


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 0},
        {"rounds": 0},
        {"keep": "first"},
        {"tau": 0},
        {"scales": []},
        {"lr": 0},
        {"warmup_steps": -1},
        {"learning_rate": 0.1},
    ],
    ids=str,
)
def test_values_out_of_range_and_unknown_keys_are_named(change):
    (name,) = change
    with pytest.raises(ValidationError, match=name):
        InversionConfig.model_validate(change)


@pytest.mark.parametrize("change", [{"scale": 0, "steps": 1}, {"scale": 1, "steps": 0}])
def test_scales_have_a_positive_factor_and_steps(change):
    with pytest.raises(ValidationError):
        ScaleConfig(**change)


def test_the_work_of_a_shard_counts_every_round_and_scale():
    method = InversionConfig(batch_size=10, rounds=3, keep="last", scales=scales(2, 1))
    assert method.scale_steps == (200, 200)
    assert SynthesisConfig(images_per_shard=20, num_shards=2, method=method).image_steps() == 2 * 20 * 3 * 400


@pytest.mark.parametrize(
    ("size", "larger"), [((224, 224), (256, 256)), ((32, 32), (36, 36)), ((16, 16), (18, 18)), ((32, 64), (36, 68))]
)
def test_the_default_canvas_is_a_seventh_larger_in_steps_of_the_scale(size, larger):
    assert canvas(*size) == larger


def test_a_margin_that_the_scale_does_not_divide_names_the_next_one_that_it_does():
    with pytest.raises(ValueError, match=r"canvas_margin \(3\) must be a multiple of 2.*Next multiple: 4\."):
        canvas(32, 32, canvas_margin=3)


def test_the_suggested_margin_suits_every_scale():
    with pytest.raises(ValueError, match=r"Next multiple: 6\."):  # 3 would fail at scale 2
        canvas(24, 24, canvas_margin=2, scales=scales(3, 2, 1))


def test_the_default_margin_suits_every_scale():
    assert canvas(48, 48, scales=scales(3, 2, 1)) == (54, 54)
    height, width = canvas(24, 24, scales=scales(3, 2, 1))
    assert (height - 24) % 6 == (width - 24) % 6 == 0


def test_an_input_that_the_scale_does_not_divide_is_not_blamed_on_the_margin():
    with pytest.raises(ValueError, match=r"the input 299x299 cannot be divided by all scales \[2, 1\]") as raised:
        canvas(299, 299)
    assert "canvas_margin" not in str(raised.value)  # no margin would help
