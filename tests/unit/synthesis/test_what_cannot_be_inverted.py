"""A teacher that cannot be inverted is noticed before shards are filled with grey."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dfnas_ray.errors import SynthesisError
from dfnas_ray.synthesis.checks import check_synthesis
from dfnas_ray.synthesis.config import SynthesisConfig
from dfnas_ray.teachers.base import freeze_teacher
from dfnas_ray.teachers.units import ImageUnits, image_units
from dfnas_ray.testing.small import IMAGE_SHAPE, small_teacher

CPU = torch.device("cpu")


class Altered(nn.Module):
    """The small teacher, with something done to what goes in, or on the way."""

    def __init__(self, prepared=lambda x: x, features=lambda model, x: model.features(x)):
        super().__init__()
        self.inner = small_teacher().model
        self.prepared, self.features = prepared, features

    def forward(self, x):
        return self.inner.classifier(self.features(self.inner, self.prepared(x)).mean((2, 3)))


def without_gradient(model, x):
    with torch.no_grad():
        return model.features(x)


def made(model, mean=(0.3,), std=(0.3,), **method):
    teacher = freeze_teacher("mine", model, IMAGE_SHAPE, mean, std)
    method = {
        "kind": "inversion",
        "batch_size": 20,
        "scales": [{"scale": 1, "steps": 15}],
        "warmup_steps": 5,
        "lr": 0.1,
    } | method
    config = SynthesisConfig.model_validate(
        {"num_shards": 1, "images_per_shard": 20, "compile": False, "method": method, "precision": "float32"}
    )
    *_, shard = config.method.synthesizer(teacher, config, CPU).make(0, 0)
    return shard


@pytest.mark.parametrize(
    "altered",
    [
        {"features": without_gradient},
        {"prepared": lambda x: x.detach()},
        {"prepared": lambda x: x.round()},
        {"prepared": lambda x: torch.from_numpy(x.detach().numpy())},
        {"prepared": lambda x: (x > 0).float()},
        {"prepared": lambda x: x * torch.nan if x.requires_grad else x},
    ],
    ids=["backbone in no_grad", "detach", "round", "numpy", "threshold", "NaN"],
)
def test_a_network_that_no_gradient_comes_through_is_named(altered):
    with pytest.raises(SynthesisError, match=r"mine cannot be inverted: .*torch\.no_grad"):
        made(Altered(**altered))


@pytest.mark.parametrize("bias", [0.0, 1.0])
def test_a_last_layer_of_zeros_is_not_blamed_on_no_grad(bias):
    untrained = Altered()
    nn.init.zeros_(untrained.inner.classifier.weight)
    nn.init.constant_(untrained.inner.classifier.bias, bias)
    with pytest.raises(SynthesisError, match=r"mine cannot be inverted: .*last layer is zero.*trained one\?$") as error:
        made(untrained)
    assert "no_grad" not in str(error.value)


def test_a_teacher_of_four_channels_is_told_how_to_take_three():
    model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    teacher = freeze_teacher("four", model, (4, 12, 16), (0.5,) * 4, (0.25,) * 4)
    config = SynthesisConfig()
    with pytest.raises(SynthesisError, match=r"four takes 4 channels; only grey and RGB") as error:
        check_synthesis(teacher, config, config.method)
    assert "teacher.builder" in str(error.value)
    assert "teacher.image_shape=[3, 12, 16]" in str(error.value)


@pytest.mark.parametrize("kind", ["inversion", "generator"])
def test_images_that_come_to_nothing_stop_the_work(kind, monkeypatch):
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self: None)
    method = {"kind": kind, "batch_size": 20}
    if kind == "generator":
        method |= {"width": 8, "student": None}
    config = SynthesisConfig.model_validate(
        {
            "num_shards": 1, "images_per_shard": 400, "compile": False, "precision": "float32",
            "method": method | ({"scales": [{"scale": 1, "steps": 30}], "warmup_steps": 0} if kind == "inversion" else {}),
        }
    )  # fmt: skip
    synthesizer = config.method.synthesizer(small_teacher(), config, CPU)
    with pytest.raises(SynthesisError, match=r"The first 20 images came to nothing: teacher small sees .* by chance"):
        list(synthesizer.make(0, 0))


def test_a_teacher_that_takes_0_to_255_gets_the_images_of_one_that_takes_standard_scores():
    usual = made(Altered(), mean=(0.5,), std=(0.25,))
    units = Altered(prepared=lambda x: (x / 255 - 0.5) / 0.25)
    other = made(units, mean=(0.0,), std=(1 / 255,))
    bare = made(Altered(prepared=lambda x: (x - 0.5) / 0.25), mean=(0.0,), std=(1.0,))
    for found in (other, bare):
        difference = abs(found.images.astype(int) - usual.images.astype(int))
        assert difference.mean() < 1, "pixels of 0 to 255"
        assert 20 < found.images.std() < 110


def test_natural_statistics_are_the_units_themselves():
    for mean, std in ((0.485, 0.229), (0.5, 0.5), (0.1307, 0.3081), (0.498, 0.502)):
        assert image_units(mean, std) == (mean, std)
    for mean, std in ((0.0, 1.0), (0.0, 1 / 255), (0.5, 1.0), (0.0, 0.3)):
        assert image_units(mean, std) == (0.5, 0.25)


def test_units_are_converted_there_and_back():
    teacher = freeze_teacher("mine", small_teacher().model, IMAGE_SHAPE, (0.0,), (1 / 255,))
    units, images = ImageUnits(teacher, CPU), torch.randn(2, *IMAGE_SHAPE)
    torch.testing.assert_close(units.to_teacher(images), 255 * (0.25 * images + 0.5))
    torch.testing.assert_close(units.from_teacher(units.to_teacher(images)), images, rtol=1e-4, atol=1e-5)
