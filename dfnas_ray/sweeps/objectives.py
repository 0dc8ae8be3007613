"""By what a set of synthetic images is judged in a sweep.

Three criteria come from `synthesis.quality` and cost one forward pass of the teacher. The student proxy trains a small
student for a fixed number of steps on the images and examines it on images of *other* settings: a setting cannot win by
making images that are easy to learn, because every student sits the same examination. How far each objective agrees with
accuracy on real images is measured in experiments/results/sweeps.md.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Direction = Literal["maximize", "minimize"]
"""In Optuna's words."""


class Objective(NamedTuple):
    """What a figure means.

    Attributes:
        direction: Which figures are better.
        is_data_free: Whether it needs nothing real.
        meaning: One line for reports.
        undefined: Why images may have no value of it.
    """

    direction: Direction
    is_data_free: bool
    meaning: str
    undefined: str = "it is not a finite number"


OBJECTIVES: dict[str, Objective] = {
    "student_proxy": Objective(
        "maximize",
        True,
        "correlation of a student's and the teacher's logits on images of other settings, of which the worst counts",
        "the student's training diverged; lower sweep.student.optimizer.lr",
    ),
    "semantics": Objective("maximize", True, "mean confidence of the teacher in its most likely class"),
    "diversity": Objective(
        "maximize",
        True,
        "mean pairwise cosine distance of features within a class",
        "no class has two images; raise synthesis.images_per_shard",
    ),
    "domain_gap": Objective(
        "minimize",
        True,
        "distance to the teacher's BatchNorm statistics, over the whole set",
        "the teacher has no BatchNorm layer with running statistics; take student_proxy",
    ),
    "verifier_agreement": Objective(
        "maximize", False, "share of images on which a second classifier sees the teacher's class"
    ),
    "labelled_accuracy": Objective("maximize", False, "accuracy of the student on labelled real images"),
}
