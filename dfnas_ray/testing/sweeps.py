"""The tests of objectives and samplers of sweeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import optuna
import pytest
import torch
from torch import nn

from dfnas_ray.datasets import DigitsConfig
from dfnas_ray.seeding import seed_everything
from dfnas_ray.sweeps.config import StudentConfig, SweepConfig
from dfnas_ray.sweeps.judged import Examination, JudgedTrial
from dfnas_ray.sweeps.measure import train_student
from dfnas_ray.sweeps.objectives import OBJECTIVES, Objective
from dfnas_ray.sweeps.sampler_configs import SAMPLERS
from dfnas_ray.sweeps.samplers import make_sampler, propose
from dfnas_ray.testing.member import ConfigSuite, MemberSuite
from dfnas_ray.testing.small import IMAGE_SHAPE, NUM_CLASSES, SMALL_CHAIN, small_images, small_teacher
from dfnas_ray.training.config import DistillationConfig


class ObjectiveSuite(MemberSuite):
    """The tests that every objective must pass.

    Attributes:
        objective: The class to test.
        objectives: Several classes to test.
    """

    family = OBJECTIVES
    argument = "objective"
    plural = "objectives"
    objectives: ClassVar[Sequence[type[Objective]] | None] = None

    if TYPE_CHECKING:
        objective: Any
    else:

        @pytest.fixture
        def objective(self) -> Any:
            """Fail with a message that says what is missing."""
            pytest.fail(f"{type(self).__name__} gives no member: set objective = MyObjective in it")

    @pytest.fixture
    def member(self, objective: type[Objective]) -> type:
        """The class of the objective."""
        return objective

    def test_it_says_what_it_is(self, objective: Any) -> None:
        """Reports show its meaning, and Optuna has to know which values are better."""
        assert objective.meaning
        assert objective.undefined
        assert objective.direction in ("maximize", "minimize")
        assert objective.needs in (None, "verifier", "labelled")

    def test_it_measures_the_same_number_twice(self, objective: Any) -> None:
        """A trial that is started again gets the same value."""
        first, second = (objective().measure(_judged_trial()) for _ in range(2))
        assert isinstance(first, int | float)
        assert first == second or (first != first and second != second)

    def test_it_says_whether_images_can_have_a_value(self, objective: Any) -> None:
        """The answer is needed before the images are made."""
        assert isinstance(objective().has_value(small_teacher(), 64), bool)


class SamplerSuite(ConfigSuite):
    """The tests that every sampler must pass.

    Attributes:
        settings: The ranges of the tests, as in an experiment file.
    """

    family = SAMPLERS
    settings: ClassVar[Mapping[str, Any]] = {
        "synthesis.method.rounds": {"integer": [1, 4]},
        "synthesis.canvas_margin": {"integer": [0, 6]},
    }

    @pytest.fixture
    def sweep(self, config: Any) -> SweepConfig:
        """A sweep over `settings`."""
        return SweepConfig.model_validate({"settings": self.settings, "sampler": config, "trials": 8})

    def test_its_proposals_are_within_the_ranges_and_depend_on_the_seed(self, sweep: SweepConfig) -> None:
        """A new sampler is made for each trial, from the trials in the study."""
        studies = []
        for _ in range(2):
            study = optuna.create_study()
            for number in range(4):
                study.sampler = make_sampler(sweep, 8, seed=number)
                trial = study.ask()
                propose(sweep, trial)
                study.tell(trial, float(sum(trial.params.values())))
            studies.append([trial.params for trial in study.trials])
        assert studies[0] == studies[1]
        for proposed in studies[0]:
            assert set(proposed) == set(self.settings)
            for path, value in proposed.items():
                range_ = sweep.settings[path]
                if range_.categories is None:
                    low, high = range_.limits
                    assert low <= value <= high

    def test_it_says_how_many_trials_there_are(self, config: Any, sweep: SweepConfig) -> None:
        """The number is that of the sweep, or that of the whole grid."""
        assert config.num_trials(sweep) > 0
        assert isinstance(config.is_exhaustive, bool)


def _judged_trial() -> JudgedTrial:
    """Return a trial of random images, with everything that an objective may use; the student trains for two steps."""
    teacher, images, device = small_teacher(), small_images(), torch.device("cpu")
    space = SMALL_CHAIN.space(IMAGE_SHAPE, NUM_CLASSES)

    def train() -> nn.Module:
        seed_everything(0)
        student = StudentConfig(steps=2, batch_size=16)
        return train_student(space.build(space.cheapest()), images, teacher, student, DistillationConfig(), 0, device)

    return JudgedTrial(
        images=images,
        teacher=teacher,
        device=device,
        examination=Examination.of([images, images], teacher, 1.0),
        train=train,
        verifier=teacher,
        labelled=DigitsConfig().open(),
    )
