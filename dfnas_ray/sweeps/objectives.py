"""Objectives, by which a sweep judges a set of synthetic images.

Three objectives come from `synthesis.quality` and cost one forward pass of the teacher. The student proxy trains a
small student for a fixed number of steps on the images, and examines it on images of *other* settings. So a setting
cannot win by making images that are easy to learn, because all students have the same examination. The agreement of
each objective with accuracy on real images is measured in experiments/results/sweeps.md.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

from dfnas_ray.config.registry import Family

if TYPE_CHECKING:
    from dfnas_ray.sweeps.judged import JudgedTrial
    from dfnas_ray.teachers.base import Teacher

Direction = Literal["maximize", "minimize"]
"""The direction of an objective, in Optuna's words."""


class Objective(ABC):
    """A figure of a trial's images.

    Attributes:
        kind: The name of the objective in experiment files.
        direction: Whether larger or smaller figures are better.
        is_data_free: Whether the objective needs no real data.
        meaning: One line for reports.
        undefined: Why the objective may have no value for some images.
        needs: The setting of the sweep that the objective needs: verifier, labelled, or None.
        needs_student: Whether the objective needs a trained student. All objectives of a sweep share one training.
    """

    kind: ClassVar[str]
    direction: ClassVar[Direction] = "maximize"
    is_data_free: ClassVar[bool] = True
    meaning: ClassVar[str]
    undefined: ClassVar[str] = "it is not a finite number"
    needs: ClassVar[Literal["verifier", "labelled"] | None] = None
    needs_student: ClassVar[bool] = False

    def has_value(self, teacher: Teacher, num_images: int) -> bool:
        """Return whether this many images of a teacher have a value, as far as this is known before they are made."""
        return True

    @abstractmethod
    def measure(self, trial: JudgedTrial) -> float:
        """Return the figure; NaN or an infinite number if there is none."""


OBJECTIVES: Family[Objective] = Family(
    "sweep objective",
    Objective,  # type: ignore[type-abstract]  # only its members are made
    {
        "student_proxy": "dfnas_ray.sweeps.criteria:StudentProxy",
        "semantics": "dfnas_ray.sweeps.criteria:Semantics",
        "diversity": "dfnas_ray.sweeps.criteria:Diversity",
        "domain_gap": "dfnas_ray.sweeps.criteria:DomainGap",
        "verifier_agreement": "dfnas_ray.sweeps.criteria:VerifierAgreement",
        "labelled_accuracy": "dfnas_ray.sweeps.criteria:LabelledAccuracy",
    },
    by_name=True,
)
"""Every objective by its kind."""
