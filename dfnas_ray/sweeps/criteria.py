"""The objectives of this package. They are compared with real accuracy in experiments/results/sweeps.md."""

from __future__ import annotations

import numpy as np
import torch

from dfnas_ray.ops.regions import center_crop
from dfnas_ray.sweeps.judged import JudgedTrial
from dfnas_ray.sweeps.measure import logits_of, student_proxy
from dfnas_ray.sweeps.objectives import Objective
from dfnas_ray.teachers.base import Teacher
from dfnas_ray.training.evaluation import evaluate_networks


class StudentProxy(Objective):
    """See `student_proxy`."""

    kind = "student_proxy"
    meaning = (
        "correlation of a student's and the teacher's logits on images of other settings, of which the worst counts"
    )
    undefined = "the student's training diverged; lower sweep.student.optimizer.lr"
    needs_student = True

    def measure(self, trial: JudgedTrial) -> float:
        """Return the result of the student's examination."""
        return student_proxy(trial.student, trial.teacher, trial.examination)


class Semantics(Objective):
    """The teacher's mean confidence."""

    kind = "semantics"
    meaning = "mean confidence of the teacher in its most likely class"

    def measure(self, trial: JudgedTrial) -> float:
        """Return the mean confidence."""
        return trial.quality["confidence"]


class Diversity(Objective):
    """The diversity of images within a class."""

    kind = "diversity"
    meaning = "mean pairwise cosine distance of features within a class"
    undefined = "no class has two images; raise synthesis.images_per_shard"

    def has_value(self, teacher: Teacher, num_images: int) -> bool:
        """Return whether a class has two images."""
        return num_images >= 2 * teacher.num_classes

    def measure(self, trial: JudgedTrial) -> float:
        """Return the mean distance."""
        return trial.quality["diversity_distance"]


class DomainGap(Objective):
    """The distance of the images from the teacher's training data, by BatchNorm statistics."""

    kind = "domain_gap"
    direction = "minimize"
    meaning = "distance to the teacher's BatchNorm statistics, over the whole set"
    undefined = "the teacher has no BatchNorm layer with running statistics; take student_proxy"

    def has_value(self, teacher: Teacher, num_images: int) -> bool:
        """Return whether the teacher has such statistics."""
        return bool(teacher.batch_norms())

    def measure(self, trial: JudgedTrial) -> float:
        """Return the distance."""
        return trial.quality["domain_gap"]


class VerifierAgreement(Objective):
    """The agreement of a second classifier with the teacher."""

    kind = "verifier_agreement"
    is_data_free = False
    meaning = "share of images on which a second classifier sees the teacher's class"
    needs = "verifier"

    def measure(self, trial: JudgedTrial) -> float:
        """Return the share."""
        assert trial.verifier is not None
        verifier, images = trial.verifier.to(trial.device), trial.images
        views = center_crop(torch.from_numpy(np.array(images.images)), trial.teacher.image_shape[1:])
        seen = logits_of(verifier.model, verifier, views).argmax(1)
        return float((seen == torch.from_numpy(images.logits.argmax(1))).float().mean())


class LabelledAccuracy(Objective):
    """The accuracy of the student on the real task."""

    kind = "labelled_accuracy"
    is_data_free = False
    meaning = "accuracy of the student on labelled real images"
    needs = "labelled"
    needs_student = True

    def measure(self, trial: JudgedTrial) -> float:
        """Return the accuracy."""
        assert trial.labelled is not None
        return evaluate_networks({"student": trial.student}, trial.teacher, trial.labelled, trial.device)["student"]
