"""Which settings of a generator go together."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from dfnas_ray.config.experiment import make_experiment
from dfnas_ray.errors import ConfigError, SynthesisError
from dfnas_ray.synthesis.checks import check_synthesis
from dfnas_ray.synthesis.config import SynthesisConfig
from dfnas_ray.teachers.base import freeze_teacher
from dfnas_ray.testing.small import small_teacher


def generator(**settings):
    common = {
        name: settings.pop(name) for name in ("num_shards", "images_per_shard", "canvas_margin") if name in settings
    }
    return SynthesisConfig.model_validate({**common, "method": {"kind": "generator", **settings}})


def refused(**settings):
    with pytest.raises(ConfigError) as error:
        make_experiment({"teacher": "digits", "synthesis": settings})
    return str(error.value)


def test_more_streams_than_shards_are_refused():
    message = refused(num_shards=2, method={"kind": "generator", "streams": 3})
    assert message == (
        "synthesis: method.streams (3) must not be above num_shards (2): each stream makes whole shards. Lower it, or raise "
        "num_shards."
    )


def test_a_pool_that_holds_no_batch_is_refused():
    message = refused(method={"kind": "generator", "pool_limit": 100})
    assert "method.pool_limit (100) must not be below method.batch_size (200)" in message


def test_any_margin_has_a_canvas():
    config = generator(canvas_margin=3)
    check_synthesis(small_teacher(), config, config.method)
    assert config.canvas_size(16, 16) == (19, 19)


@pytest.mark.parametrize(("size", "canvas"), [(16, 18), (28, 32), (32, 36), (64, 72), (224, 256)])
def test_the_default_canvas_can_be_reached_by_doublings(size, canvas):
    assert generator().canvas_size(size, size) == (canvas, canvas)


@pytest.mark.parametrize(("size", "canvas"), [((120, 160), (136, 176)), ((33, 47), (37, 51)), ((5, 9), (5, 9))])
def test_where_doublings_lead_to_no_canvas_the_default_is_a_seventh_larger(size, canvas):
    assert generator().canvas_size(*size) == canvas


def test_images_of_an_odd_shape_are_made():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    )
    teacher = freeze_teacher("odd", model, (3, 15, 20), (0.5,) * 3, (0.25,) * 3)
    student = {"steps": 2, "batch_size": 8, "warmup_batches": 1}
    method = {"kind": "generator", "batch_size": 10, "width": 4, "latent_dim": 8, "student": student}
    config = SynthesisConfig.model_validate(
        {"num_shards": 1, "images_per_shard": 30, "compile": False, "precision": "float32", "method": method}
    )
    check_synthesis(teacher, config, config.method)
    *_, shard = config.method.synthesizer(teacher, config, torch.device("cpu")).make(0, 0)
    assert shard.images.shape == (30, 3, 17, 22)
    assert shard.images.std() > 20
    assert all((a != b).any() for a, b in pairwise(shard.images))


def test_the_streams_take_turns_and_share_the_batches():
    config = generator(num_shards=5, images_per_shard=400, streams=2)
    assert [config.method.predecessor(shard, config) for shard in range(5)] == [None, None, 0, 1, 2]
    assert [config.method.num_batches(stream, config) for stream in range(2)] == [6, 4]


def test_a_teacher_whose_weights_nothing_draws_anew_has_no_student():
    from torchvision.models import vit_b_16

    teacher = freeze_teacher("vit", vit_b_16(image_size=32, num_classes=10), (3, 32, 32), (0.5,) * 3, (0.25,) * 3)
    config = generator()
    with pytest.raises(SynthesisError, match=r"student like teacher vit cannot be made: .*student=null"):
        config.method.check_teacher(teacher, config)
    generator(student=None).method.check_teacher(teacher, config)


def test_terms_that_are_not_given_are_those_that_suit_a_generator():
    def weights(**regularizers):
        terms = SynthesisConfig.model_validate(
            {"method": {"kind": "generator"}, "regularizers": regularizers}
        ).regularizers
        return {name: term.weight for name, term in terms.terms().items()}

    assert weights() == {"bn_statistics": 2, "adversarial": 2}
    assert weights(l2={"weight": 3}, adversarial={"weight": 0}) == {"bn_statistics": 2, "l2": 3}
    alone = SynthesisConfig.model_validate({"method": {"kind": "generator", "student": None}}).regularizers
    assert set(alone.terms()) == {"bn_statistics"}
    part = SynthesisConfig.model_validate(
        {"method": "generator", "regularizers": {"bn_statistics": {"first_layer_multiplier": 5}}}
    ).regularizers
    assert (part.bn_statistics.weight, part.bn_statistics.first_layer_multiplier) == (2, 5)


def test_progress_counts_no_steps_of_a_student_that_has_not_joined():
    student = {"steps": 30, "batch_size": 64, "warmup_batches": 5}
    method = {"kind": "generator", "batch_size": 10, "adaptation_steps": 4, "streams": 2, "student": student}
    settings = SynthesisConfig(num_shards=5, images_per_shard=40, method=method)
    # 4 batches a shard, shards take turns in two streams: 0 and 1 are warm-up, 2 and 3 begin with one more batch of it.
    steps = [settings.image_steps([shard]) for shard in range(5)]
    assert steps == [160, 160, 160 + 3 * 30 * 64, 160 + 3 * 30 * 64, 160 + 4 * 30 * 64]
    assert settings.image_steps() == sum(steps)
