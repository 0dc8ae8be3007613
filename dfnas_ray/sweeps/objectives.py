"""By what a set of synthetic images is judged in a sweep.

Three criteria come from `synthesis.quality` and cost one forward pass of the teacher. The student proxy trains a small
student for a fixed number of steps on the images and examines it on images of *other* settings: a setting cannot win by
making images that are easy to learn, because every student sits the same examination. How far each objective agrees with
accuracy on real images is measured in experiments/results/sweeps.md.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

from dfnas_ray.config.registry import Family

if TYPE_CHECKING:
    from dfnas_ray.sweeps.judged import JudgedTrial
    from dfnas_ray.teachers.base import Teacher

Direction = Literal["maximize", "minimize"]
"""In Optuna's words."""


class Objective(ABC):
    """A figure of a trial's images.

    Attributes:
        kind: The name of the objective in experiment files.
        direction: Which figures are better.
        is_data_free: Whether it needs nothing real.
        meaning: One line for reports.
        undefined: Why images may have no value of it.
        needs: The setting of the sweep without which it cannot be measured: verifier, labelled, or None.
        needs_student: Whether a student is trained for it. One training serves all objectives of a sweep.
    """

    kind: ClassVar[str]
    direction: ClassVar[Direction] = "maximize"
    is_data_free: ClassVar[bool] = True
    meaning: ClassVar[str]
    undefined: ClassVar[str] = "it is not a finite number"
    needs: ClassVar[Literal["verifier", "labelled"] | None] = None
    needs_student: ClassVar[bool] = False

    def has_value(self, teacher: Teacher, num_images: int) -> bool:
        """Return whether so many images of a teacher have a value, as far as can be known before they are made."""
        return True

    @abstractmethod
    def measure(self, trial: JudgedTrial) -> float:
        """Return the figure; not a finite number where there is none."""


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
