"""R_H: the teacher should be sure of what it sees.

Source: Grandvalet & Bengio 2004, "Semi-supervised learning by entropy minimization", NeurIPS 17, Sec. 2. Written from the
formula.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from dfnas_ray.synthesis.regularizers import Regularizer, RegularizerConfig


def entropy_loss(logits: Tensor, temperature: float = 1.0) -> Tensor:
    r"""Return :math:`-\frac{1}{B} \sum_i \sum_c p_{ic} \log p_{ic}` with :math:`p_i = \mathrm{softmax}(z_i / T)`.

    Args:
        logits: (B, num_classes), the :math:`z_i`.
        temperature: :math:`T`; above 1 it looks at the less likely classes, too.

    Returns:
        Scalar; 0 where the teacher is certain, log(num_classes) where it has no idea.
    """
    log_probabilities = (logits / temperature).log_softmax(1)
    return -(log_probabilities.exp() * log_probabilities).sum(1).mean()


class EntropyConfig(RegularizerConfig):
    """R_H: low entropy of the teacher's prediction for each image."""

    kind: ClassVar[str] = "entropy"

    weight: float = Field(0.1, ge=0, description="Weight in the loss.")
    temperature: float = Field(1.0, gt=0, description="Divides the logits.")

    def loss(self) -> Regularizer:
        """Return the unweighted term as a plain function."""
        temperature = self.temperature
        return lambda observation: entropy_loss(observation.logits, temperature)
