"""What networks of the field do, and what becomes of it: the right answer, or one sentence."""

from __future__ import annotations

import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dfnas_ray.errors import TeacherError
from dfnas_ray.synthesis.observed import ObservedTeacher
from dfnas_ray.teachers.base import Teacher, freeze_teacher
from dfnas_ray.teachers.fresh import fresh_copy
from dfnas_ray.teachers.guarded import GuardedNetwork
from dfnas_ray.training.config import OptimizerConfig
from dfnas_ray.training.student import Student

SHAPE = (3, 8, 8)


class Plain(nn.Module):
    """Normalises by itself, out of place."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.classifier = nn.Linear(6, 4)

    def prepared(self, x):
        return (x - 0.5) / 0.25

    def head(self, x):
        return self.classifier(x.mean((2, 3)))

    def forward(self, x):
        return self.head(self.features(self.prepared(x)))


class InPlace(Plain):
    def prepared(self, x):
        x -= 0.5
        x /= 0.25
        return x


class Clamps(Plain):
    def prepared(self, x):
        return (x.clamp_(-1, 1) - 0.5) / 0.25


class Masks(Plain):
    def prepared(self, x):
        x[:, 0] = 0
        return x


class ReLUFirst(Plain):
    def prepared(self, x):
        return F.relu(x, inplace=True)


class Views(Plain):
    def __init__(self):
        super().__init__()
        self.classifier = nn.Linear(6 * 64, 4)

    def head(self, x):
        return self.classifier(x.view(x.size(0), -1))


class NeedsContiguous(Plain):
    def prepared(self, x):
        assert x.is_contiguous()
        return x


class Float32Alone(Plain):
    def head(self, x):
        assert x.dtype == torch.float32
        return super().head(x)


class Trains(Plain):
    """Ignores eval(), as some do to keep the statistics of a batch."""

    def train(self, mode=True):
        return super().train(True)


def teacher_of(model, **given):
    return freeze_teacher("mine", model, SHAPE, **{"mean": (0.5,) * 3, "std": (0.25,) * 3, **given})


def images(count=8):
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", [InPlace, Clamps, Masks, ReLUFirst])
def test_a_network_that_changes_its_input_is_given_copies(kind, caplog):
    teacher = teacher_of(kind())
    given = images()
    before = given.clone()
    logits = teacher.model(given)
    assert torch.equal(given, before)
    assert torch.equal(logits, kind().eval()(before.clone()))
    assert "changes its input in place: it is given copies" in caplog.text
    given.requires_grad_()
    (gradient,) = torch.autograd.grad(teacher.model(given).square().sum(), given)
    assert gradient.abs().sum() > 0


def test_a_network_that_leaves_its_input_alone_stays_as_it_is(caplog):
    model = Plain()
    assert teacher_of(model).model is model
    assert not caplog.records


@pytest.mark.parametrize(
    ("kind", "said"), [(Views, "channels_last"), (NeedsContiguous, "channels_last"), (Float32Alone, "bfloat16")]
)
def test_a_trick_that_breaks_a_network_is_left_out(kind, said, caplog):
    teacher = teacher_of(kind())
    assert said in caplog.text
    expected = kind().eval()(images())
    last = images().to(memory_format=torch.channels_last)
    moved = ObservedTeacher(teacher.model).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, received = moved(last)
    torch.testing.assert_close(logits.float(), expected, rtol=0.1, atol=0.05)
    assert len(received) == 1
    student = Student(fresh_copy(teacher.model), OptimizerConfig(), 4.0, 1, "bfloat16")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.isfinite(student.model(last)).all()
    assert isinstance(teacher.model, GuardedNetwork)


def test_a_teacher_stays_in_evaluation_mode_whatever_its_train_does():
    teacher = teacher_of(Trains())
    assert not any(module.training for module in teacher.model.modules())
    expected = Plain().eval()(images())
    torch.testing.assert_close(teacher.model(images()), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_network_of_another_precision_computes_in_float32(dtype, caplog):
    teacher = teacher_of(Plain().to(dtype))
    assert teacher.model(images()).dtype == torch.float32
    assert f"has weights in {dtype}: it computes in float32" in caplog.text


class WithLock(Plain):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


class WithGenerator(Plain):
    def __init__(self):
        super().__init__()
        self.numbers = (n for n in range(3))


@pytest.mark.parametrize("kind", [WithLock, WithGenerator])
@pytest.mark.parametrize("make", [teacher_of, lambda model: Teacher.from_model(model, SHAPE, (0.5,) * 3, (0.25,) * 3)])
def test_what_cannot_be_copied_is_said_at_once(kind, make):
    with pytest.raises(TeacherError, match=r"cannot be copied: .* Remove what cannot be copied"):
        make(kind())


def broken(change):
    model = Plain()
    with torch.no_grad():
        change(model)
    return model


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m.classifier.weight[0].fill_(torch.nan), "weights that are NaN or infinite: classifier.weight"),
        (lambda m: m.features[1].running_mean.fill_(torch.inf), "weights that are NaN or infinite: features.1.running_mean"),
        (lambda m: m.features[1].running_var.fill_(-1), "negative variances: features.1.running_var"),
    ],
)  # fmt: skip
def test_numbers_that_nothing_can_be_computed_with_are_named(change, said):
    with pytest.raises(TeacherError, match=said):
        teacher_of(broken(change))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"mean": (123.7, 116.3, 103.5)},
            r"must be those of pixels in \[0, 1\].* write mean \(0\.4851, 0\.4561, 0\.4059\)",
        ),
        ({"std": (58.4, 57.1, 57.4)}, r"write mean .* and std \(0\.229, 0\.2239, 0\.2251\)"),
        ({"mean": (33.3, 33.3, 33.3), "std": (0.3, 0.3, 0.3)}, r"pixels in \[0, 1\]"),
        ({"mean": (float("nan"), 0, 0)}, "must be finite"),
        ({"std": (float("inf"), 1, 1)}, "must be finite"),
        ({"std": (0.0, 1, 1)}, "must be positive"),
        ({"mean": (0.5,)}, "one number for each of the 3 channels"),
    ],
)
def test_input_statistics_out_of_range_are_refused(given, said):
    with pytest.raises(TeacherError, match=said):
        teacher_of(Plain(), **given)


def test_a_teacher_that_takes_0_to_255_is_none_of_them():
    assert teacher_of(Plain(), mean=(0, 0, 0), std=(1 / 255,) * 3).num_classes == 4


class After(Plain):
    def __init__(self, activation):
        super().__init__()
        self.activation = activation

    def forward(self, x):
        return self.activation(super().forward(x))


@pytest.mark.parametrize(
    ("activation", "said"),
    [
        (nn.Softmax(1), r"returns probabilities \(a softmax\) where logits are needed"),
        (nn.Sigmoid(), r"returns numbers between 0 and 1 \(a sigmoid\) where logits are needed"),
        (lambda z: z[:, :1], "has one output"),
        (lambda z: z / 0, "answers noise with NaN or infinite logits"),
    ],
)
def test_answers_that_are_no_logits_are_noticed(activation, said):
    with pytest.raises(TeacherError, match=said):
        teacher_of(After(activation))


@pytest.mark.parametrize("activation", [nn.LogSoftmax(1), nn.ReLU(), nn.Identity(), lambda z: 1e-3 * z])
def test_answers_that_serve_as_logits_are_taken(activation):
    assert teacher_of(After(activation)).num_classes == 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: F.dropout(x, 0.5, training=True), "differently each time"),
        (lambda x: x + torch.randn_like(x), "differently each time"),
        (lambda x: F.batch_norm(x, None, None, training=True), "depends on the other images of the batch"),
        (lambda x: x - x.mean(0, keepdim=True), "depends on the other images of the batch"),
        (lambda x: x / x.amax(), "depends on the other images of the batch"),
    ],
)
def test_answers_that_depend_on_chance_or_on_the_batch_are_said_to(change, said, caplog):
    model = Plain()
    model.prepared = change
    teacher_of(model)
    assert said in caplog.text


def test_layers_without_running_statistics_are_named(caplog):
    model = Plain()
    model.features[1] = nn.BatchNorm2d(6, track_running_stats=False)
    teacher_of(model)
    assert "batch: features.1 without running statistics" in caplog.text


class RefusesOne(Plain):
    def forward(self, x):
        assert len(x) > 1, "a batch of one"
        return super().forward(x)


class Squeezes(Plain):
    def head(self, x):
        return super().head(x).squeeze()


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (RefusesOne, r"does not take a single image (AssertionError: a batch of one)"),
        (Squeezes, r"answers a single image with (4,), without the batch dimension (use flatten(1), not squeeze())"),
    ],
)
def test_a_network_that_does_not_work_with_one_image_is_given_a_copy_beside_it(kind, said, caplog):
    teacher, plain = teacher_of(kind()), Plain().eval()
    assert f"{said}. It is given a copy beside each such image." in caplog.text
    assert "depends on the other images" not in caplog.text
    torch.testing.assert_close(teacher.model(images(1)), plain(images(1)))
    torch.testing.assert_close(teacher.model(images(3)), plain(images(3)))
    assert teacher.cost == teacher_of(Plain()).cost  # that of one image, not of two


def test_a_network_that_changes_its_input_and_refuses_a_single_image_is_protected_from_both():
    class Both(InPlace):
        def forward(self, x):
            assert len(x) > 1
            return super().forward(x)

    given = images(1)
    expected = Plain().eval()(given)
    torch.testing.assert_close(teacher_of(Both()).model(given), expected)
    assert torch.equal(given, images(1))


def test_a_network_that_takes_neither_one_image_nor_two_is_refused():
    class Three(Plain):
        def forward(self, x):
            assert len(x) > 2
            return super().forward(x)

    with pytest.raises(
        TeacherError, match=r"single image \(AssertionError.*two images fail, too \(AssertionError.*any size"
    ):
        teacher_of(Three())


def test_trying_a_teacher_draws_no_random_number_of_its_users():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    model = Plain.__new__(Plain)
    with torch.random.fork_rng(devices=[]):
        Plain.__init__(model)
    model.prepared = lambda x: F.dropout(x, 0.5, training=True)
    teacher_of(model)
    assert torch.equal(torch.rand(2), expected)
