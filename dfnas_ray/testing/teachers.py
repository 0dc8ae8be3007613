"""The tests of teacher sources."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from dfnas_ray.teachers import TEACHERS
from dfnas_ray.teachers.base import Teacher
from dfnas_ray.testing.member import ConfigSuite


class TeacherSuite(ConfigSuite):
    """The tests that every teacher source must pass. Give settings with which it loads in seconds."""

    family = TEACHERS

    @pytest.fixture
    def teacher(self, config: Any, tmp_path: Path) -> Teacher:
        """The teacher, loaded into an empty cache."""
        loaded: Teacher = config.load(tmp_path / "cache")
        return loaded

    def test_loaded_twice_it_is_the_same(self, config: Any, teacher: Teacher, tmp_path: Path) -> None:
        """It is the same from its cache and, as on another machine, without it: stages depend on its fingerprint."""
        assert isinstance(teacher, Teacher), "load() must return a Teacher, as freeze_teacher does"
        assert config.load(tmp_path / "cache").fingerprint == teacher.fingerprint
        torch.manual_seed(77)
        assert config.load(tmp_path / "another").fingerprint == teacher.fingerprint

    def test_it_gives_logits_of_its_classes(self, teacher: Teacher) -> None:
        """This holds for any number of images of its shape."""
        for count in (1, 3):
            logits = teacher.model(torch.zeros(count, *teacher.image_shape))
            assert logits.shape == (count, teacher.num_classes)
            assert bool(logits.isfinite().all())

    def test_its_statistics_are_those_of_its_channels(self, teacher: Teacher) -> None:
        """Each channel has one mean and one positive standard deviation, of pixels in [0, 1]."""
        assert len(teacher.mean) == len(teacher.std) == teacher.image_shape[0]
        assert all(0 <= mean <= 1 for mean in teacher.mean), "means are of pixels in [0, 1]"
        assert min(teacher.std) > 0
        assert teacher.name

    def test_it_is_frozen(self, teacher: Teacher) -> None:
        """It is in evaluation mode, and its weights need no gradients. Gradients of images pass through it."""
        assert not any(module.training for module in teacher.model.modules())
        assert not any(parameter.requires_grad for parameter in teacher.model.parameters())
        images = torch.randn(2, *teacher.image_shape, requires_grad=True)
        teacher.model(images).sum().backward()
        assert images.grad is not None
        assert bool((images.grad != 0).any())

    def test_it_depends_on_the_image_alone(self, teacher: Teacher) -> None:
        """It does not depend on the other images of the batch, nor on earlier ones."""
        images = torch.randn(4, *teacher.image_shape, generator=torch.Generator().manual_seed(2))
        before = teacher.fingerprint
        together = teacher.model(images)
        torch.testing.assert_close(teacher.model(images[:1]), together[:1], rtol=1e-3, atol=1e-4)
        assert Teacher(**_fields(teacher)).fingerprint == before

    def test_it_can_be_copied_and_sent(self, teacher: Teacher) -> None:
        """Workers get copies of it."""
        images = torch.randn(2, *teacher.image_shape, generator=torch.Generator().manual_seed(3))
        for copied in (copy.deepcopy(teacher), pickle.loads(pickle.dumps(teacher))):
            assert Teacher(**_fields(copied)).fingerprint == teacher.fingerprint
            torch.testing.assert_close(copied.model(images), teacher.model(images))

    def test_its_cost_is_counted(self, teacher: Teacher) -> None:
        """A limit on MACs may be a share of the teacher's."""
        assert min(teacher.cost) > 0


def _fields(teacher: Teacher) -> dict[str, Any]:
    """Return the arguments of a new teacher, which computes its own fingerprint."""
    return {name: getattr(teacher, name) for name in Teacher.__dataclass_fields__}
