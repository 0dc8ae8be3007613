"""The contract of a regulariser, and what it can observe."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple, cast

from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dfnas_ray.config.member import MemberConfig

OBSERVABLE = frozenset({"bn_inputs", "features", "step", "student_logits"})
"""Parts of an `Observation` that are computed only if a term asks for them."""

_NOT_OBSERVED = cast(Tensor, None)  # so a term that uses what it has not asked for fails at once


class Statistics(NamedTuple):
    """Running mean and biased variance of each channel over earlier batches."""

    mean: Tensor  # (C,)
    var: Tensor  # (C,)
    share: float  # weight of the earlier batches: rho in rho * before + (1 - rho) * now


class BatchNormInput(NamedTuple):
    """What one BatchNorm layer of the teacher received, and its statistics from training."""

    x: Tensor  # (B, C, H, W), or (B, C) after pooling
    running_mean: Tensor  # (C,)
    running_var: Tensor  # (C,)
    past: Statistics | None = None  # of earlier batches, if they count


class Observation(NamedTuple):
    """One forward pass of the teacher on a batch of synthetic images.

    A term gets what `OBSERVABLE` names only if its config asks for it with ``observes``. A term that observes a student
    is not computed before the student has learned something.
    """

    images: Tensor  # (B, C, H, W), in standard scores of pixels, with gradient
    bn_inputs: Sequence[BatchNormInput] = ()  # in forward order
    logits: Tensor = _NOT_OBSERVED  # (B, num_classes), float32
    targets: Tensor = _NOT_OBSERVED  # (B, num_classes), distributions
    features: Tensor = _NOT_OBSERVED  # (B, D), float32: the input of the last linear layer
    step: Tensor = _NOT_OBSERVED  # (), int64: optimiser steps that this batch has made, through all scales
    student_logits: Tensor = _NOT_OBSERVED  # (B, num_classes), float32: those of a student in training

    def copied(self) -> Observation:
        """Return a copy that may be changed in place, except for what BatchNorm layers received: that is not copied."""
        small = {name: value.clone() for name, value in self._asdict().items() if isinstance(value, Tensor)}
        layers = [
            layer._replace(running_mean=layer.running_mean.clone(), running_var=layer.running_var.clone())
            for layer in self.bn_inputs
        ]
        return self._replace(**small, bn_inputs=layers)


Regularizer = Callable[[Observation], Tensor]


class RegularizerConfig(MemberConfig):
    """The common settings of all regularisers. Each regulariser defines its ``kind``."""

    observes: ClassVar[frozenset[str]] = frozenset()
    """The names in `OBSERVABLE` that the term uses."""

    weight: float = Field(ge=0, description="Weight in the loss.")

    @abstractmethod
    def loss(self) -> Regularizer:
        """Return the unweighted term: a plain function that returns a scalar and that torch.compile can trace."""

    def unsuitable(self, model: nn.Module) -> str:
        """Return why the term cannot be computed with a teacher's network; empty if it can.

        The text continues a sentence that begins with the teacher, such as "has no BatchNorm layer".
        """
        if "bn_inputs" in self.observes and not any(
            isinstance(module, _BatchNorm) and module.running_mean is not None for module in model.modules()
        ):
            return "has no BatchNorm layer with running statistics"
        return ""
