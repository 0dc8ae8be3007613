"""What is refused before the first trial, and what makes one trial fail."""

from functools import partial

import pytest
import torch
from torch import nn

from dfnas_ray.config.experiment import make_experiment
from dfnas_ray.errors import ConfigError
from dfnas_ray.storage.location import Location
from dfnas_ray.sweeps.checks import check_settings
from dfnas_ray.sweeps.trials import reference_images, shard_job
from dfnas_ray.synthesis.config import SynthesisConfig
from dfnas_ray.testing.small import small_teacher
from dfnas_ray.workflow.sweep import check_ranges

LR = {"synthesis.method.lr": {"uniform": [0.1, 1]}}
METHOD = {"kind": "inversion", "batch_size": 10, "warmup_steps": 0}
SMALL = {"images_per_shard": 20, "num_shards": 2, "canvas_margin": 2, "method": METHOD}


def experiment(sweep, **values):
    values.setdefault("synthesis", SMALL)
    return make_experiment({"teacher": "digits", **values, "sweep": {"settings": LR, **sweep}})


def refusal(teacher, config):
    with pytest.raises(ConfigError) as raised:
        check_ranges(teacher, config, config.sweep)
    return str(raised.value)


def test_a_value_that_trials_can_have_and_a_run_cannot_is_refused(tiny_teacher):
    sizes = {"synthesis.method.batch_size": {"choice": [10, 20]}}
    sweep = {"settings": sizes, "fixed": {"synthesis.images_per_shard": 40}}
    config = experiment(sweep, synthesis={**SMALL, "images_per_shard": 50})
    message = refusal(tiny_teacher, config)
    assert "sweep.settings.synthesis.method.batch_size at 20" in message
    assert "a run with the best settings could not" in message
    assert "images_per_shard (50) must be a multiple of method.batch_size (20)" in message
    of_trial = partial(check_settings, tiny_teacher, config.synthesis, config.sweep)
    assert of_trial({"synthesis.method.batch_size": 10}).method.batch_size == 10
    with pytest.raises(ConfigError, match="images_per_shard"):  # the same for a trial by itself
        of_trial({"synthesis.method.batch_size": 20})


def test_a_value_that_suits_the_trials_canvas_alone_is_refused(tiny_teacher):
    sweep = {
        "settings": {"synthesis.canvas_margin": {"integer": [1, 3]}},
        "fixed": {"synthesis.method.scales": [{"scale": 1, "steps": 10}]},
    }
    assert "synthesis.canvas_margin (1) must be a multiple of 2" in refusal(tiny_teacher, experiment(sweep))


def test_fewer_shards_than_the_search_of_a_run_starts_with_are_refused(tiny_teacher):
    sweep = {"settings": {"synthesis.num_shards": {"choice": [2, 8]}}}
    config = experiment(sweep, synthesis={**SMALL, "num_shards": 4}, search={"start_after_shards": 4})
    message = refusal(tiny_teacher, config)
    assert "sweep.settings.synthesis.num_shards at 2" in message
    assert "search.start_after_shards (4)" in message


def test_objectives_without_a_value_are_refused(make_teacher, tiny_teacher):
    plain = make_teacher(nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16, 10)))
    without = {**SMALL, "regularizers": {"bn_statistics": {"weight": 0}}}
    message = refusal(plain, experiment({"objectives": ["domain_gap"]}, synthesis=without))
    assert message.startswith("sweep.objectives: domain_gap has no value")
    assert "no BatchNorm layer" in message
    check_ranges(plain, config := experiment({"objectives": ["diversity"]}, synthesis=without), config.sweep)
    few = {**SMALL, "images_per_shard": 10}
    one_shard = {"objectives": ["diversity"], "fixed": {"synthesis.num_shards": 1, "synthesis.method.rounds": 1}}
    assert "no class has two images" in refusal(tiny_teacher, experiment(one_shard, synthesis=few))


TAU = {"synthesis.method.tau": {"uniform": [0.5, 2]}}
KEEP = {"synthesis.method.keep": {"choice": ["all", "last"]}}
FIRST = {"synthesis.regularizers.bn_statistics.first_layer_multiplier": {"uniform": [1, 10]}}


@pytest.mark.parametrize(
    ("sweep", "words"),
    [
        (
            {"settings": TAU, "fixed": {"synthesis.method.rounds": 1}},
            "synthesis.method.tau has no effect: synthesis.method.rounds",
        ),
        (
            {"settings": KEEP, "fixed": {"synthesis.method.rounds": 1}},
            "synthesis.method.keep has no effect: synthesis.method.rounds",
        ),
        (
            {"settings": FIRST, "fixed": {"synthesis.regularizers.bn_statistics.weight": 0}},
            "first_layer_multiplier has no effect: synthesis.regularizers.bn_statistics.weight of the trials is 0",
        ),
    ],
)
def test_what_has_no_effect_is_not_varied(tiny_teacher, sweep, words):
    assert words in refusal(tiny_teacher, experiment(sweep))


def test_what_has_an_effect_in_some_trials_is_varied(tiny_teacher):
    config = experiment(
        {"settings": {**TAU, "synthesis.method.rounds": {"integer": [1, 2]}}, "fixed": {"synthesis.num_shards": 1}},
        synthesis={**SMALL, "method": {**METHOD, "rounds": 1}},
    )
    check_ranges(tiny_teacher, config, config.sweep)


def test_a_generators_reference_images_are_not_those_of_its_warm_up(tmp_path):
    student = {"warmup_batches": 1, "steps": 1, "batch_size": 4}
    method = {"kind": "generator", "batch_size": 10, "width": 4, "adaptation_steps": 1, "student": student}
    config = SynthesisConfig.model_validate(
        {"num_shards": 1, "images_per_shard": 80, "compile": False, "precision": "float32", "method": method}
    )
    job = shard_job(small_teacher(), config, 0, Location.parse(tmp_path))
    images = reference_images(small_teacher(), job, torch.device("cpu"))
    assert config.method.warmup_images == 60
    assert images.ids.tolist() == list(range(60, 80))
