"""The loss of inversion: teacher, regularisers and their sum, compiled where that is possible."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfnas_ray.ops.precision import autocast, autocast_dtype
from dfnas_ray.synthesis.config import SynthesisConfig
from dfnas_ray.synthesis.observed import FeatureTap, ObservedTeacher
from dfnas_ray.synthesis.regularizers import Observation
from dfnas_ray.teachers.base import Teacher

logger = logging.getLogger(__name__)


class InversionObjective:
    """CE(T(x), target) + sum of weighted regularisers, as a function of a batch of inputs."""

    def __init__(self, teacher: Teacher, config: SynthesisConfig, device: torch.device):
        self.device = device
        self.regularizers = config.regularizers.active()
        self.dtype = autocast_dtype(config.precision, device)
        self.observes = config.regularizers.observes
        observed = "bn_inputs" in self.observes
        model: nn.Module = ObservedTeacher(teacher.model) if observed else copy.deepcopy(teacher.model)
        self.model = model.to(device).to(memory_format=torch.channels_last)
        self.features = FeatureTap(self.model) if "features" in self.observes else None
        self._call: Callable[..., dict[str, Tensor]] = self._losses
        self._compiled = False
        if config.compile:
            # Of one function the compiler keeps a handful of versions, and one objective's weights are constants in it: in a
            # process that makes many, as a sweep's, it would give up without a word, and the images depend on the order.
            torch.compiler.reset()
            self._call = torch.compile(self._losses, dynamic=False)
            self._compiled = True

    def _losses(self, images: Tensor, targets: Tensor, *step: Tensor) -> dict[str, Tensor]:
        with autocast(self.device, self.dtype):
            if "bn_inputs" in self.observes:
                logits, bn_inputs = self.model(images)
            else:
                logits, bn_inputs = self.model(images), []
        logits = logits.float()
        losses = {"cross_entropy": F.cross_entropy(logits, targets)}
        observation = Observation(images, bn_inputs, logits, targets)
        if self.features is not None:
            observation = observation._replace(features=self.features.take().float())
        if step:
            observation = observation._replace(step=step[0])
        for name, (weight, regularizer) in self.regularizers.items():
            losses[name] = weight * regularizer(observation)
        losses["total"] = torch.stack(list(losses.values())).sum()
        return losses

    def __call__(self, images: Tensor, targets: Tensor, step: int = 0) -> dict[str, Tensor]:
        """Return the weighted terms by name, and their sum as ``total``.

        Args:
            images: (B, C, H, W), normalised.
            targets: (B, num_classes) distributions.
            step: Optimiser steps that this batch has made.
        """
        inputs = [images.contiguous(memory_format=torch.channels_last), targets]
        if "step" in self.observes:
            inputs.append(torch.tensor(step, device=self.device))  # a number would be compiled anew at every step
        if not self._compiled:
            return self._call(*inputs)
        try:
            return self._call(*inputs)
        except Exception as error:
            if not _is_compiler_failure(error):
                raise
            logger.warning(
                "torch.compile does not work here (%s); synthesis goes on without it, slower. "
                "Set synthesis.compile=false to silence this.",
                str(error).strip().splitlines()[0],
            )
            self._call, self._compiled = self._losses, False
            return self._call(*inputs)


def _is_compiler_failure(error: Exception) -> bool:
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.exc import CppCompileError, InvalidCxxCompiler

    return isinstance(error, TorchDynamoException | CppCompileError | InvalidCxxCompiler)
