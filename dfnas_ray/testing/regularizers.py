"""The tests of synthesis regularisers."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dfnas_ray.synthesis.objective import TeacherObjective
from dfnas_ray.synthesis.observed import FeatureTap, ObservedTeacher
from dfnas_ray.synthesis.regularizers import OBSERVABLE, REGULARIZERS, Observation, RegularizersConfig
from dfnas_ray.synthesis.settings import SetSettings
from dfnas_ray.teachers.base import Teacher
from dfnas_ray.testing.member import ConfigSuite
from dfnas_ray.testing.small import small_teacher

_OTHERS = {name: {"weight": 0} for name in RegularizersConfig.model_fields}


class RegularizerSuite(ConfigSuite):
    """The tests that every regulariser must pass. A fixture ``teacher`` replaces the small convolutional network."""

    family = REGULARIZERS

    @pytest.fixture
    def teacher(self) -> Teacher:
        """An untrained network with BatchNorm."""
        return small_teacher()

    @pytest.fixture
    def batch(self, teacher: Teacher) -> tuple[Tensor, Tensor]:
        """Four random images that require gradients, and their targets."""
        generator = torch.Generator().manual_seed(1)
        images = torch.randn(4, *teacher.image_shape, generator=generator).requires_grad_(True)
        return images, torch.softmax(torch.randn(4, teacher.num_classes, generator=generator), 1)

    @pytest.fixture
    def observation(self, config: Any, teacher: Teacher, batch: tuple[Tensor, Tensor]) -> Observation:
        """The input of the term, with only those observations that it asks for."""
        if reason := config.unsuitable(teacher.model):
            pytest.skip(f"the suite's teacher {reason}: override the fixture teacher")
        model = ObservedTeacher(teacher.model)
        features = FeatureTap(model.model)
        logits, bn_inputs = model(batch[0])
        made = {"bn_inputs": bn_inputs, "features": features.take(), "step": torch.tensor(3)}
        made["student_logits"] = _UnsureStudent(teacher)(batch[0])
        return Observation(batch[0], logits=logits, targets=batch[1])._replace(
            **{name: value for name, value in made.items() if name in config.observes}
        )

    def test_the_term_is_a_finite_number_of_its_own_kind(self, config: Any, observation: Observation) -> None:
        """A float32 scalar, which is added to the loss."""
        value = config.loss()(observation)
        assert isinstance(value, Tensor), f"loss() must return a function that returns a tensor, not {type(value)}"
        assert value.shape == ()
        assert value.dtype == torch.float32
        assert bool(value.isfinite())

    def test_its_gradient_reaches_the_images(self, config: Any, teacher: Teacher, batch: tuple[Tensor, Tensor]) -> None:
        """It does so within the loss of synthesis, at the first step or at a later one."""
        if reason := config.unsuitable(teacher.model):
            pytest.skip(f"the suite's teacher {reason}: override the fixture teacher")
        config = config.model_copy(update={"weight": config.weight or 1.0})
        regularizers = RegularizersConfig.model_validate({**_OTHERS, config.kind: config})
        settings = SetSettings(regularizers=regularizers, compile=False, precision="float32")
        objective = TeacherObjective(teacher, settings, torch.device("cpu"), _UnsureStudent(teacher))
        images, targets = batch
        largest = 0.0
        for step in (0, 500):
            losses = objective(images, targets, step, with_student=True)
            assert set(losses) == {"cross_entropy", config.kind, "total"}
            (gradient,) = torch.autograd.grad(losses[config.kind], images, allow_unused=True)
            if gradient is not None:
                assert bool(gradient.isfinite().all())
                largest = max(largest, float(gradient.abs().max()))
        assert largest > 0, "the term does not depend on the images"

    def test_a_term_of_weight_0_is_not_computed(self, config: Any) -> None:
        """Its observations are not computed, either."""
        terms = {**_OTHERS, config.kind: config.model_copy(update={"weight": 0})}
        regularizers = RegularizersConfig.model_validate(terms)
        assert regularizers.active() == {}
        assert regularizers.observes == frozenset()

    def test_torch_compile_traces_the_term_as_one_graph(self, config: Any, observation: Observation) -> None:
        """Graph breaks are slow. Forward and backward are traced, which needs no C++ compiler."""
        torch.compiler.reset()
        compiled = torch.compile(config.loss(), backend="aot_eager", fullgraph=True, dynamic=False)
        eager = config.loss()(observation)
        torch.testing.assert_close(compiled(observation), eager)
        traced, expected = (
            torch.autograd.grad(value, observation.images, retain_graph=True, allow_unused=True)[0]
            for value in (compiled(observation), eager)
        )
        torch.testing.assert_close(traced, expected)

    def test_half_precision_activations_are_taken(self, config: Any, observation: Observation) -> None:
        """Under autocast the teacher's activations are bfloat16, but the term must be float32."""
        halved = [layer._replace(x=layer.x.bfloat16()) for layer in observation.bn_inputs]
        value = config.loss()(observation._replace(bn_inputs=halved))
        assert value.dtype == torch.float32
        assert bool(value.isfinite())

    def test_it_observes_what_it_says(self, config: Any, observation: Observation) -> None:
        """Declared observations are computed, at a cost; others are missing."""
        unknown = config.observes - OBSERVABLE
        assert not unknown, f"observes names {sorted(unknown)}; there are {sorted(OBSERVABLE)}"
        watched = _Watched(*observation)
        _looked_at.clear()
        config.loss()(watched)
        undeclared = (_looked_at & OBSERVABLE) - config.observes
        assert not undeclared, f"add {sorted(undeclared)} to observes"
        unused = config.observes - _looked_at
        assert not unused, f"it does not look at {sorted(unused)}: take it out of observes"

    def test_it_says_of_any_teacher_whether_it_can_be_computed(self, config: Any, teacher: Teacher) -> None:
        """`unsuitable` returns a reason, or nothing."""
        assert isinstance(config.unsuitable(teacher.model), str)


class _UnsureStudent(nn.Module):
    """A student that predicts the classes of the teacher, but less surely."""

    def __init__(self, teacher: Teacher):
        super().__init__()
        self.model = copy.deepcopy(teacher.model)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images)
        return logits / 2


_looked_at: set[str] = set()


class _Watched(Observation):
    """An observation that records which of its fields are read."""

    def __getattribute__(self, name: str) -> Any:
        _looked_at.add(name)
        return super().__getattribute__(name)

    def __iter__(self) -> Iterator[Any]:
        _looked_at.update(self._fields)
        return super().__iter__()

    def __getitem__(self, index: Any) -> Any:
        _looked_at.update(self._fields)
        return super().__getitem__(index)
