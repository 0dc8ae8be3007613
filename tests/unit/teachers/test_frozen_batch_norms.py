"""BatchNorm whose weights and statistics are buffers: it serves synthesis, and is learned anew, as any other."""

import pytest
import torch
from torch import nn
from torchvision.models import resnet18
from torchvision.ops import FrozenBatchNorm2d

from dfnas_ray.synthesis.observed import ObservedTeacher
from dfnas_ray.teachers import base
from dfnas_ray.teachers.base import Teacher
from dfnas_ray.teachers.fresh import fresh_copy, why_not_fresh

SHAPE = (3, 32, 32)


def randomised(model):
    """Give statistics and weights of normalisation values as after a training."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict().items():
        if name.endswith(("running_mean", "bias")) and tensor.ndim == 1:
            tensor.normal_(0, 0.2, generator=generator)
        elif tensor.ndim == 1 and tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5, generator=generator)
    return model


def teacher_of(model):
    return Teacher.from_model(model, SHAPE, (0.5,) * 3, (0.25,) * 3)


@pytest.fixture
def images():
    return torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(1))


def test_frozen_layers_become_equal_ones_with_statistics(images):
    torch.manual_seed(0)
    model = randomised(resnet18(num_classes=5, norm_layer=FrozenBatchNorm2d)).eval()
    teacher = teacher_of(model)
    norms = teacher.batch_norms()
    assert len(norms) == 20
    assert norms[0][0] == "bn1"
    assert torch.equal(norms[0][1].running_var, model.bn1.running_var)
    assert isinstance(model.bn1, FrozenBatchNorm2d), "the model itself stays as it is"
    with torch.no_grad():
        torch.testing.assert_close(teacher.model(images), model(images), rtol=1e-4, atol=1e-4)
        _, received = ObservedTeacher(teacher.model)(images)
    assert len(received) == 20
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())


def test_a_fresh_copy_of_them_keeps_nothing():
    torch.manual_seed(0)
    model = randomised(resnet18(num_classes=5, norm_layer=FrozenBatchNorm2d))
    teacher = teacher_of(model)
    assert why_not_fresh(teacher.model) == ""
    fresh = fresh_copy(teacher.model)
    assert torch.equal(fresh.bn1.running_mean, torch.zeros(64))
    assert torch.equal(fresh.bn1.weight, torch.ones(64))
    assert fresh.bn1.weight.requires_grad


class OwnNorm(FrozenBatchNorm2d):
    """Looks like a frozen BatchNorm, and computes something else."""

    def forward(self, x):
        return super().forward(x).abs()


def small(norm):
    torch.manual_seed(0)
    return randomised(
        nn.Sequential(nn.Conv2d(3, 8, 3), norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    )


def test_a_layer_with_an_eps_of_its_own_keeps_it(images):
    model = small(FrozenBatchNorm2d(8, eps=0.5))
    teacher = teacher_of(model)
    assert teacher.model[1].eps == 0.5
    torch.testing.assert_close(teacher.model(images), model.eval()(images))


def test_statistics_that_float32_rounds_coarsely_are_used_too():
    norm = FrozenBatchNorm2d(8)
    model = small(norm)
    norm.running_mean.fill_(50.0)
    norm.running_var.fill_(1e-6)
    norm.bias.copy_(50.0 * norm.weight * (1e-6 + norm.eps) ** -0.5)
    assert len(teacher_of(model).batch_norms()) == 1


def hooked():
    layer = FrozenBatchNorm2d(8)
    layer.register_forward_hook(lambda module, given, output: output + 1)
    return layer


@pytest.mark.parametrize("make", [lambda: OwnNorm(8), hooked])
def test_a_layer_that_computes_something_else_stays_and_has_no_fresh_copy(make, images):
    model = small(make())
    teacher = teacher_of(model)
    assert isinstance(teacher.model[1], FrozenBatchNorm2d)
    assert torch.equal(teacher.model(images), model.eval()(images))
    assert f"its layer 1 ({type(model[1]).__name__}) has statistics of its training" in why_not_fresh(teacher.model)


def test_a_layer_that_is_used_twice_stays_one_layer(images):
    norm = FrozenBatchNorm2d(3)
    model = randomised(nn.Sequential(norm, nn.Conv2d(3, 3, 3), norm, nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    teacher = teacher_of(model)
    assert teacher.model[0] is teacher.model[2]
    torch.testing.assert_close(teacher.model(images), model.eval()(images), rtol=1e-4, atol=1e-5)


def test_the_fingerprint_of_a_teacher_without_them_stays(monkeypatch):
    expected = teacher_of(small(nn.BatchNorm2d(8))).fingerprint
    monkeypatch.setattr(base, "replace_frozen_batch_norms", lambda model: None)
    assert teacher_of(small(nn.BatchNorm2d(8))).fingerprint == expected
