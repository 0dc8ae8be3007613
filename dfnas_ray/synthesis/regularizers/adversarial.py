"""R_adv: prefer images on which the probabilities of a student in training still differ from the teacher's.

Source: Fang et al. 2022, arXiv:2112.06253, Eq. 3; the idea is that of Yin et al. 2020, arXiv:1912.08795, Sec. 3.3. Written
from the formula.
"""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from dfnas_ray.synthesis.regularizers.base import Regularizer, RegularizerConfig


def adversarial_loss(teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
    r"""Return :math:`-\frac1B \sum_i 1[\arg\max s_i = \arg\max t_i] \, KL(softmax(t_i) \| softmax(s_i))`.

    Only images for which the student already names the teacher's class count. Otherwise, meaningless images would have
    the lowest loss.

    Args:
        teacher_logits: (B, num_classes).
        student_logits: (B, num_classes).

    Returns:
        Scalar float32, at most 0.
    """
    agrees = (student_logits.argmax(1) == teacher_logits.argmax(1)).float()
    teacher, student = (F.log_softmax(logits.float(), dim=1) for logits in (teacher_logits, student_logits))
    divergence = F.kl_div(student, teacher, reduction="none", log_target=True).sum(1)
    return -(agrees * divergence).mean()


class AdversarialConfig(RegularizerConfig):
    """R_adv: prefer images on which a student's probabilities differ from the teacher's. It needs a student."""

    kind: ClassVar[str] = "adversarial"
    observes: ClassVar[frozenset[str]] = frozenset({"student_logits"})

    weight: float = Field(0.0, ge=0, description="Weight in the loss; 0 where no student is trained beside the images.")

    def loss(self) -> Regularizer:
        """Return the unweighted term as a plain function."""
        return lambda observation: adversarial_loss(observation.logits, observation.student_logits)
