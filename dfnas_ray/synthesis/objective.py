"""The loss of inversion: teacher, regularisers and their sum, compiled where that is possible."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dfnas_ray.ops.precision import autocast, autocast_dtype
from dfnas_ray.synthesis.config import SynthesisConfig
from dfnas_ray.synthesis.regularizers import BatchNormInput, Observation
from dfnas_ray.teachers.base import Teacher

logger = logging.getLogger(__name__)


class ObservedTeacher(nn.Module):
    """A private copy of the teacher that hands out the inputs of its BatchNorm layers.

    The user's model is left alone: no hook is ever put on it. Each call returns the logits and what the layers received
    during that call, in forward order.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.received: list[BatchNormInput] = []
        for module in self.model.modules():
            if isinstance(module, _BatchNorm) and module.track_running_stats:
                module.register_forward_pre_hook(self._receive)

    def _receive(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.received.append(BatchNormInput(inputs[0], module.running_mean, module.running_var))  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> tuple[Tensor, list[BatchNormInput]]:
        """Map (B, C, H, W) to logits (B, num_classes) and one entry per BatchNorm layer passed."""
        self.received.clear()
        logits = self.model(x)
        received = list(self.received)
        self.received.clear()
        return logits, received


class InversionObjective:
    """CE(T(x), target) + sum of weighted regularisers, as a function of a batch of inputs."""

    def __init__(self, teacher: Teacher, config: SynthesisConfig, device: torch.device):
        self.device = device
        self.regularizers = config.regularizers.active()
        self.dtype = autocast_dtype(config.precision, device)
        observes = config.regularizers.bn_statistics.weight > 0
        model: nn.Module = ObservedTeacher(teacher.model) if observes else copy.deepcopy(teacher.model)
        self.model = model.to(device).to(memory_format=torch.channels_last)
        self.observes = observes
        self._call: Callable[[Tensor, Tensor], dict[str, Tensor]] = self._losses
        self._compiled = False
        if config.compile:
            # Of one function the compiler keeps a handful of versions, and one objective's weights are constants in it: in a
            # process that makes many, as a sweep's, it would give up without a word, and the images depend on the order.
            torch.compiler.reset()
            self._call = torch.compile(self._losses, dynamic=False)
            self._compiled = True

    def _losses(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        with autocast(self.device, self.dtype):
            if self.observes:
                logits, bn_inputs = self.model(images)
            else:
                logits, bn_inputs = self.model(images), []
        losses = {"cross_entropy": F.cross_entropy(logits.float(), targets)}
        observation = Observation(images, bn_inputs)
        for name, (weight, regularizer) in self.regularizers.items():
            losses[name] = weight * regularizer(observation)
        losses["total"] = torch.stack(list(losses.values())).sum()
        return losses

    def __call__(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return the weighted terms by name, and their sum as ``total``.

        Args:
            images: (B, C, H, W), normalised.
            targets: (B, num_classes) distributions.
        """
        images = images.contiguous(memory_format=torch.channels_last)
        if not self._compiled:
            return self._call(images, targets)
        try:
            return self._call(images, targets)
        except Exception as error:
            if not _is_compiler_failure(error):
                raise
            logger.warning(
                "torch.compile does not work here (%s); synthesis goes on without it, slower. "
                "Set synthesis.compile=false to silence this.",
                str(error).strip().splitlines()[0],
            )
            self._call, self._compiled = self._losses, False
            return self._call(images, targets)


def _is_compiler_failure(error: Exception) -> bool:
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.exc import CppCompileError, InvalidCxxCompiler

    return isinstance(error, TorchDynamoException | CppCompileError | InvalidCxxCompiler)
