"""What a regulariser may look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor


class BatchNormInput(NamedTuple):
    """What one teacher BatchNorm layer received, beside what it saw in training."""

    x: Tensor  # (B, C, H, W), or (B, C) after pooling
    running_mean: Tensor  # (C,)
    running_var: Tensor  # (C,)


class Observation(NamedTuple):
    """One forward pass of the teacher on a batch of synthetic images."""

    images: Tensor  # (B, C, H, W), normalised, with gradient
    bn_inputs: Sequence[BatchNormInput]  # in forward order; empty when no term asks for them


Regularizer = Callable[[Observation], Tensor]
