"""Settings of synthesis: what they are worth, and errors that name the way out."""

import pytest
from pydantic import ValidationError

from dfnas_ray.synthesis.config import ScaleConfig, SynthesisConfig


def stages(*scales, steps=200):
    return tuple(ScaleConfig(scale=scale, steps=steps) for scale in scales)


def test_the_defaults_are_the_published_schedule():
    config = SynthesisConfig()
    assert [(stage.scale, stage.steps) for stage in config.stages] == [(2, 2000), (1, 3000)]
    assert (config.lr, config.warmup_steps, config.tau, config.flip_probability) == (0.25, 100, 1.0, 0.5)


@pytest.mark.parametrize(("images", "batch", "following"), [(1000, 64, 1024), (30, 50, 50), (129, 64, 192)])
def test_images_that_are_no_multiple_name_both_values_and_the_next_multiple(images, batch, following):
    with pytest.raises(
        ValidationError,
        match=rf"images_per_shard \({images}\) must be a multiple of batch_size \({batch}\).*Next multiple: {following}\.",
    ):
        SynthesisConfig(images_per_shard=images, batch_size=batch)
    SynthesisConfig(images_per_shard=following, batch_size=batch)


def test_stages_end_at_full_size():
    with pytest.raises(ValidationError, match="stages must end at scale 1, the teacher's own size, not 2"):
        SynthesisConfig(stages=stages(1, 2))


@pytest.mark.parametrize("warmup", [50, 60])
def test_a_warm_up_as_long_as_a_stage_names_both(warmup):
    with pytest.raises(ValidationError, match=rf"warmup_steps \({warmup}\) must be less than .*\(50 the fewest\)"):
        SynthesisConfig(stages=(*stages(2, steps=50), *stages(1)), warmup_steps=warmup)
    SynthesisConfig(stages=(*stages(2, steps=50), *stages(1)), warmup_steps=49)


@pytest.mark.parametrize(
    "change",
    [
        {"num_shards": 0},
        {"images_per_shard": 0},
        {"batch_size": 0},
        {"rounds": 0},
        {"keep": "first"},
        {"tau": 0},
        {"stages": []},
        {"canvas_margin": -1},
        {"flip_probability": 1.1},
        {"lr": 0},
        {"warmup_steps": -1},
        {"precision": "float16"},
        {"learning_rate": 0.1},
    ],
    ids=str,
)
def test_values_out_of_range_and_unknown_keys_are_named(change):
    (name,) = change
    with pytest.raises(ValidationError, match=name):
        SynthesisConfig.model_validate(change)


@pytest.mark.parametrize("change", [{"scale": 0, "steps": 1}, {"scale": 1, "steps": 0}])
def test_stages_have_a_positive_scale_and_steps(change):
    with pytest.raises(ValidationError):
        ScaleConfig(**change)


@pytest.mark.parametrize(("keep", "total"), [("all", 4 * 20 * 3), ("last", 4 * 20)])
def test_the_total_counts_the_kept_rounds(keep, total):
    config = SynthesisConfig(num_shards=4, images_per_shard=20, batch_size=10, rounds=3, keep=keep)
    assert config.images_in_total == total


def test_the_work_of_a_shard_counts_every_round_and_stage():
    config = SynthesisConfig(images_per_shard=20, batch_size=10, rounds=3, keep="last", stages=stages(2, 1))
    assert config.image_steps_per_shard == 20 * 3 * 400


@pytest.mark.parametrize(
    ("size", "canvas"), [((224, 224), (256, 256)), ((32, 32), (36, 36)), ((16, 16), (18, 18)), ((32, 64), (36, 68))]
)
def test_the_default_canvas_is_a_seventh_larger_in_steps_of_the_scale(size, canvas):
    assert SynthesisConfig().canvas_size(*size) == canvas


def test_a_given_margin_is_taken():
    assert SynthesisConfig(canvas_margin=0).canvas_size(32, 32) == (32, 32)
    assert SynthesisConfig(canvas_margin=8).canvas_size(32, 32) == (40, 40)


def test_a_margin_that_the_scale_does_not_divide_names_the_next_one_that_it_does():
    with pytest.raises(ValueError, match=r"canvas_margin \(3\) must be a multiple of 2.*Next multiple: 4\."):
        SynthesisConfig(canvas_margin=3).canvas_size(32, 32)


def test_the_suggested_margin_suits_every_scale():
    config = SynthesisConfig(stages=stages(3, 2, 1), canvas_margin=2)
    with pytest.raises(ValueError, match=r"Next multiple: 6\."):  # 3 would fail at scale 2
        config.canvas_size(24, 24)


def test_the_default_margin_suits_every_scale():
    assert SynthesisConfig(stages=stages(3, 2, 1)).canvas_size(48, 48) == (54, 54)
    height, width = SynthesisConfig(stages=stages(3, 2, 1)).canvas_size(24, 24)
    assert (height - 24) % 6 == (width - 24) % 6 == 0


def test_an_input_that_the_scale_does_not_divide_is_not_blamed_on_the_margin():
    with pytest.raises(ValueError, match=r"the input 299x299 cannot be divided by all scales \[2, 1\]") as raised:
        SynthesisConfig().canvas_size(299, 299)
    assert "canvas_margin" not in str(raised.value)  # no margin would help
