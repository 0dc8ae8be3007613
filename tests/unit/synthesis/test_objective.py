"""The loss of synthesis: its terms, its compiled form, and what it leaves alone."""

import copy
import logging
from functools import partial

import pytest
import torch
import torch._inductor.exc
import torch.nn.functional as F
from torch import nn

from dfnas_ray.errors import SynthesisError
from dfnas_ray.synthesis.checks import check_synthesis
from dfnas_ray.synthesis.config import SynthesisConfig
from dfnas_ray.synthesis.objective import TeacherObjective
from dfnas_ray.synthesis.observed import ObservedTeacher

CPU = torch.device("cpu")
LOGGER = "dfnas_ray.synthesis.objective"


def config(**changes):
    values = {"compile": False, "precision": "float32"}
    return SynthesisConfig.model_validate(values | changes)


@pytest.fixture
def batch():
    """Four images in normalised units, and a distribution over ten classes for each."""
    generator = torch.Generator().manual_seed(11)
    images = torch.randn(4, 1, 16, 16, generator=generator)
    return images, torch.softmax(torch.randn(4, 10, generator=generator), 1)


class PooledClassifier(nn.Module):
    """A network without BatchNorm."""

    def __init__(self, num_classes=10):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 4, 3)
        self.head = nn.Linear(4, num_classes)

    def forward(self, x):
        return self.head(self.conv(x).mean((2, 3)))


# ObservedTeacher


def test_every_batchnorm_is_observed_in_forward_order():
    class Swapped(nn.Module):
        """Registers its layers in another order than it calls them, and one of them twice."""

        def __init__(self):
            super().__init__()
            self.second = nn.BatchNorm1d(1)
            self.first = nn.BatchNorm2d(1)
            self.second.running_mean.fill_(2.0)
            self.first.running_mean.fill_(1.0)

        def forward(self, x):
            return self.second(self.second(self.first(x).mean((2, 3))))

    x = torch.full((2, 1, 3, 3), 7.0)
    _, received = ObservedTeacher(Swapped())(x)
    assert [entry.running_mean.item() for entry in received] == [1.0, 2.0, 2.0]
    assert torch.equal(received[0].x, x)
    assert received[1].x.shape == (2, 1)


def test_each_call_observes_that_call_alone(tiny_teacher, batch):
    observed = ObservedTeacher(tiny_teacher.model)
    for images in (batch[0], batch[0][:2]):
        logits, received = observed(images)
        assert len(received) == 5
        assert all(len(entry.x) == len(images) for entry in received)
        torch.testing.assert_close(logits, tiny_teacher.model(images))


def test_the_users_model_gets_no_hook_and_keeps_its_state(tiny_teacher, batch):
    model = tiny_teacher.model
    before = copy.deepcopy(model.state_dict())
    objective = TeacherObjective(tiny_teacher, config(), CPU)
    images = batch[0].requires_grad_()
    objective(images, batch[1])["total"].backward()
    for module in model.modules():
        assert not module._forward_pre_hooks
        assert not module._forward_hooks
        assert not module._backward_hooks
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(p.grad is None for p in model.parameters())


# TeacherObjective


def test_the_terms_are_weighted_and_sum_to_the_total(tiny_teacher, batch):
    weights = {"bn_statistics": {"weight": 0.5, "first_layer_multiplier": 3.0}, "total_variation": {"weight": 0.25}}
    losses = TeacherObjective(tiny_teacher, config(regularizers=weights | {"l2": {"weight": 2.0}}), CPU)(*batch)
    images, targets = batch
    logits = tiny_teacher.model(images)
    expected = {
        "cross_entropy": -(targets * logits.log_softmax(1)).sum(1).mean().item(),
        "l2": 2.0 * sum(image.norm().item() for image in images) / 4,
    }
    differences = [images.diff(dim=3), images.diff(dim=2)]
    differences += [images[..., 1:, 1:] - images[..., :-1, :-1], images[..., 1:, :-1] - images[..., :-1, 1:]]
    expected["total_variation"] = 0.25 * sum(d.norm().item() for d in differences)
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value, rel=1e-4), name
    assert set(losses) == {*expected, "bn_statistics", "total"}
    parts = sum(value.item() for name, value in losses.items() if name != "total")
    assert losses["total"].item() == pytest.approx(parts)


def test_the_first_batchnorm_is_multiplied(tiny_teacher, batch):
    def loss(multiplier):
        terms = {"bn_statistics": {"weight": 1.0, "first_layer_multiplier": multiplier}}
        return TeacherObjective(tiny_teacher, config(regularizers=terms), CPU)(*batch)["bn_statistics"].item()

    first_conv, first_bn = tiny_teacher.model.features[0][0], tiny_teacher.model.features[0][1]
    x = first_conv(batch[0])
    first = (x.mean((0, 2, 3)) - first_bn.running_mean).norm() + (
        x.var((0, 2, 3), correction=0) - first_bn.running_var
    ).norm()
    assert loss(3.0) - loss(1.0) == pytest.approx(2 * first.item(), rel=1e-4)


def test_a_term_of_weight_zero_is_not_in_the_losses(tiny_teacher, batch):
    zero = {name: {"weight": 0} for name in ("bn_statistics", "total_variation", "l2")}
    losses = TeacherObjective(tiny_teacher, config(regularizers=zero), CPU)(*batch)
    assert set(losses) == {"cross_entropy", "total"}
    assert losses["total"].item() == losses["cross_entropy"].item()


def test_a_teacher_without_batchnorm_names_the_setting(make_teacher):
    with pytest.raises(SynthesisError, match=r"synthesis\.regularizers\.bn_statistics\.weight=0"):
        check_synthesis(make_teacher(PooledClassifier()), config(), config().method)


def test_a_teacher_without_batchnorm_works_at_weight_zero(make_teacher, batch):
    teacher = make_teacher(PooledClassifier())
    terms = {"bn_statistics": {"weight": 0}}
    losses = TeacherObjective(teacher, config(regularizers=terms), CPU)(*batch)
    assert losses["cross_entropy"].item() == pytest.approx(
        F.cross_entropy(teacher.model(batch[0]), batch[1]).item(), rel=1e-5
    )


def test_bfloat16_runs_the_teacher_in_bfloat16_and_the_losses_in_float32(tiny_teacher, batch):
    exact = TeacherObjective(tiny_teacher, config(), CPU)(*batch)
    images = batch[0].clone().requires_grad_()
    rough = TeacherObjective(tiny_teacher, config(precision="bfloat16"), CPU)(images, batch[1])
    assert {value.dtype for value in rough.values()} == {torch.float32}
    assert rough["total"].item() == pytest.approx(exact["total"].item(), rel=0.05)
    assert rough["cross_entropy"].item() != exact["cross_entropy"].item()
    (gradient,) = torch.autograd.grad(rough["total"], images)
    assert gradient.dtype == torch.float32
    assert gradient.isfinite().all()


# torch.compile


def test_a_compiler_that_does_not_work_is_left_with_one_warning(tiny_teacher, batch, broken_compiler, caplog):
    expected = TeacherObjective(tiny_teacher, config(), CPU)(*batch)
    with caplog.at_level(logging.WARNING, LOGGER):
        objective = TeacherObjective(tiny_teacher, config(compile=True), CPU)
        results = [objective(*batch) for _ in range(3)]
    assert len(broken_compiler) == 1  # not tried again
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "torch.compile does not work here" in record.getMessage()
    assert "synthesis.compile=false" in record.getMessage()
    for losses in results:
        for name, value in expected.items():
            assert torch.equal(losses[name], value), name


def test_compile_false_never_calls_the_compiler(tiny_teacher, batch, monkeypatch, caplog):
    monkeypatch.setattr(torch, "compile", None)
    TeacherObjective(tiny_teacher, config(compile=False), CPU)(*batch)
    assert not caplog.records


def test_an_error_of_the_teacher_is_not_taken_for_one_of_the_compiler(tiny_teacher, batch, monkeypatch, caplog):
    def fake_compile(function, **options):
        def compiled(*args):
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

        return compiled

    monkeypatch.setattr(torch, "compile", fake_compile)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        TeacherObjective(tiny_teacher, config(compile=True), CPU)(*batch)
    assert not caplog.records


def test_every_objective_of_a_process_is_compiled(monkeypatch, tiny_teacher, batch):
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    weights = [
        0.1 * number for number in range(1, 13)
    ]  # more settings than the compiler keeps versions of one function
    counts = []
    for weight in weights:
        objective = TeacherObjective(
            tiny_teacher, config(compile=True, regularizers={"bn_statistics": {"weight": weight}}), CPU
        )
        compiled.clear()
        objective(*batch)
        counts.append(len(compiled))
    assert counts == [counts[0]] * len(weights)
    assert counts[0] >= 1
