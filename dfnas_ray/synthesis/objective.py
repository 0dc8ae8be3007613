"""The loss of synthesis: teacher, regularisers and their sum, compiled where that is possible."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfnas_ray.config.registry import is_built_in
from dfnas_ray.ops.compiling import CompiledCall
from dfnas_ray.ops.networks import copy_network
from dfnas_ray.ops.precision import autocast, autocast_dtype
from dfnas_ray.synthesis.observed import FeatureTap, ObservedTeacher
from dfnas_ray.synthesis.regularizers import Observation, Statistics
from dfnas_ray.synthesis.settings import SetSettings
from dfnas_ray.teachers.base import Teacher
from dfnas_ray.teachers.units import ImageUnits


class TeacherObjective:
    """CE(T(x), target) + sum of weighted regularisers, as a function of a batch of inputs.

    Args:
        teacher: The frozen teacher, which is copied.
        settings: The terms with their weights, and how they are computed.
        device: The device that computes.
        student: The student for the terms that use one. It may learn between two calls.
    """

    def __init__(self, teacher: Teacher, settings: SetSettings, device: torch.device, student: nn.Module | None = None):
        self.device, self.student, self.units = device, student, ImageUnits(teacher, device)
        self.regularizers = settings.regularizers.active()
        self.of_others = {name for name, term in settings.regularizers.terms().items() if not is_built_in(type(term))}
        self.dtype = autocast_dtype(settings.precision, device)
        self.observes = settings.regularizers.observes
        self.looks_at_student = {
            name for name, term in settings.regularizers.terms().items() if "student_logits" in term.observes
        }
        observed = "bn_inputs" in self.observes
        model: nn.Module = ObservedTeacher(teacher.model) if observed else copy_network(teacher.model)
        self.model = model.to(device).to(memory_format=torch.channels_last)
        self.features = FeatureTap(self.model) if "features" in self.observes else None
        self._call: Callable[..., dict[str, Tensor]] = self._losses
        if settings.compile:
            self._call = CompiledCall(self._losses, "synthesis.compile")

    def _losses(
        self, images: Tensor, targets: Tensor, step: Tensor | None, past: list[Statistics] | None, with_student: bool
    ) -> dict[str, Tensor]:
        with autocast(self.device, self.dtype):
            if "bn_inputs" in self.observes:
                logits, bn_inputs = self.model(images.clone())
            else:
                logits, bn_inputs = self.model(images.clone()), []
            student_logits = self.student(images.clone()) if with_student and self.student is not None else None
        if past is not None:
            bn_inputs = [layer._replace(past=before) for layer, before in zip(bn_inputs, past, strict=True)]
        logits = logits.float()
        losses = {"cross_entropy": F.cross_entropy(logits, targets)}
        observation = Observation(self.units.from_teacher(images), bn_inputs, logits, targets)
        if self.features is not None:
            observation = observation._replace(features=self.features.take().float())
        if step is not None:
            observation = observation._replace(step=step)
        if student_logits is not None:
            observation = observation._replace(student_logits=student_logits.float())
        for name, (weight, regularizer) in self.regularizers.items():
            if student_logits is not None or name not in self.looks_at_student:
                losses[name] = weight * regularizer(observation.copied() if name in self.of_others else observation)
        losses["total"] = torch.stack(list(losses.values())).sum()
        return losses

    def __call__(
        self,
        images: Tensor,
        targets: Tensor,
        step: int | Tensor = 0,
        past: list[Statistics] | None = None,
        with_student: bool = False,
    ) -> dict[str, Tensor]:
        """Return the weighted terms by name, and their sum as ``total``.

        Args:
            images: (B, C, H, W), normalised.
            targets: (B, num_classes) distributions.
            step: Optimiser steps of this batch so far; a scalar tensor on the device if the call is recorded as a
                graph.
            past: Statistics of what BatchNorm layers received in earlier batches, if they count.
            with_student: Whether the terms that use the student are computed.
        """
        # With a Python number, every step would be compiled again.
        steps = torch.as_tensor(step, device=self.device) if "step" in self.observes else None
        return self._call(images.contiguous(memory_format=torch.channels_last), targets, steps, past, with_student)
