"""Settings of a synthetic set: what they are worth, and errors that name the way out."""

import pytest
import yaml
from pydantic import ValidationError

from dfnas_ray.config.experiment import make_experiment
from dfnas_ray.errors import ConfigError, SynthesisError
from dfnas_ray.synthesis.config import SynthesisConfig
from dfnas_ray.synthesis.inversion.synthesizer import InversionConfig


def refusal(*overrides, **synthesis):
    with pytest.raises(ConfigError) as raised:
        make_experiment({"teacher": "digits", "synthesis": synthesis}, overrides)
    return str(raised.value)


def test_the_default_is_the_published_inversion():
    config = SynthesisConfig()
    assert config.method == InversionConfig()
    assert config.flip_probability == 0.5


@pytest.mark.parametrize(("images", "batch", "following"), [(1000, 64, 1024), (30, 50, 50), (129, 64, 192)])
def test_images_that_are_no_multiple_name_both_values_and_the_next_multiple(images, batch, following):
    words = rf"images_per_shard \({images}\) must be a multiple of method\.batch_size \({batch}\).*: {following}\."
    method = InversionConfig(batch_size=batch)
    with pytest.raises(ValidationError, match=words):
        SynthesisConfig(images_per_shard=images, method=method)
    SynthesisConfig(images_per_shard=following, method=method)


@pytest.mark.parametrize(
    "change",
    [
        {"num_shards": 0},
        {"images_per_shard": 0},
        {"canvas_margin": -1},
        {"flip_probability": 1.1},
        {"precision": "float16"},
        {"learning_rate": 0.1},
        {"method": "inversoin"},
    ],
    ids=str,
)
def test_values_out_of_range_and_unknown_keys_are_named(change):
    (name,) = change
    assert f"synthesis.{name}" in refusal(**change)


@pytest.mark.parametrize(("keep", "rows"), [("all", 20 * 3), ("last", 20)])
def test_the_total_counts_the_kept_rounds(keep, rows):
    method = InversionConfig(batch_size=10, rounds=3, keep=keep)
    config = SynthesisConfig(num_shards=4, images_per_shard=20, method=method)
    assert (config.rows_per_shard, config.images_in_total, config.num_rounds) == (rows, 4 * rows, 4 * 3)


def test_a_given_margin_is_taken():
    assert SynthesisConfig(canvas_margin=0).canvas_size(32, 32) == (32, 32)
    assert SynthesisConfig(canvas_margin=8).canvas_size(32, 32) == (40, 40)


def test_inputs_without_a_canvas_are_an_error_that_the_user_can_mend():
    with pytest.raises(SynthesisError, match="Use a single scale of 1"):
        SynthesisConfig().canvas_size(33, 47)


# Settings that stood here before there were several synthesizers


def test_settings_of_the_inversion_are_refused_with_the_line_that_says_the_same():
    scales = [{"scale": 2, "steps": 150}, {"scale": 1, "steps": 200}]
    message = refusal(num_shards=4, batch_size=100, rounds=3, keep="last", stages=scales, lr=0.1)
    line = (
        "method: {kind: inversion, batch_size: 100, rounds: 3, keep: last, "
        "scales: [{scale: 2, steps: 150}, {scale: 1, steps: 200}], lr: 0.1}"
    )
    assert message == (
        f"synthesis: batch_size, rounds, keep, stages, lr belong to the synthesizer. Write {line}, or on the command line "
        "--set synthesis.method.kind=inversion --set synthesis.method.batch_size=VALUE."
    )
    config = make_experiment({"teacher": "digits", "synthesis": yaml.safe_load(line)})
    expected = InversionConfig(batch_size=100, rounds=3, keep="last", scales=scales, lr=0.1)
    assert config.synthesis.method == expected


@pytest.mark.parametrize(
    ("synthesis", "old", "value", "shown"),
    [
        ({"method": "inversion"}, "rounds", "3", ["synthesis.method.rounds=3"]),
        ({}, "rounds", "3", ["synthesis.method.kind=inversion", "synthesis.method.rounds=3"]),
        (
            {"method": {"kind": "inversion", "rounds": 1}},
            "stages",
            "[{scale: 1, steps: 200}]",
            ["synthesis.method.scales=[{scale: 1, steps: 200}]"],
        ),
    ],
)
def test_an_override_of_before_is_refused_with_the_one_that_says_the_same(synthesis, old, value, shown):
    message = refusal(f"synthesis.{old}={value}", **synthesis)
    assert f"{old} belongs to the synthesizer" in message
    words = [word.rstrip(".") for word in message.split() if word.startswith("synthesis.method.")]
    assert [word.replace("VALUE", value) for word in words] == shown
    make_experiment({"teacher": "digits", "synthesis": synthesis}, shown)
