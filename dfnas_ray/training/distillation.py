"""The loss with which a student learns from its teacher.

Source: Hinton et al. 2015, arXiv:1503.02531.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def distillation_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    r"""Return :math:`T^2 \, KL(softmax(t / T) \| softmax(s / T))`, averaged over the batch.

    The factor :math:`T^2` keeps the gradient's size independent of the temperature.

    Args:
        student_logits: (B, num_classes).
        teacher_logits: (B, num_classes); no gradient flows into them.
        temperature: T > 0.
    """
    student = F.log_softmax(student_logits.float() / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits.detach().float() / temperature, dim=1)
    return temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)
