"""Model inversion: noise becomes images that the teacher recognises.

Source: Yin et al. 2020, arXiv:1912.08795, and Liu et al. 2022, arXiv:2112.02086. Written from the formulas.
Shapes: canvases (B, C, H', W') with H' >= H; what the teacher sees is (B, C, H, W), or smaller at coarse scales.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from dfnas_ray.errors import SynthesisError
from dfnas_ray.ops.graphs import GraphedCall
from dfnas_ray.ops.networks import copy_network
from dfnas_ray.ops.regions import Lines, center_crop, crop_lines, draw_region, lines
from dfnas_ray.synthesis.base import LossPoint, OnSteps
from dfnas_ray.synthesis.checks import check_synthesis
from dfnas_ray.synthesis.inversion.config import InversionSettings, ScaleConfig
from dfnas_ray.synthesis.objective import TeacherObjective
from dfnas_ray.synthesis.settings import SetSettings
from dfnas_ray.teachers.base import Teacher
from dfnas_ray.teachers.units import ImageUnits

CURVE_POINTS = 40  # per batch and scale
BETAS = (0.5, 0.9)


def learning_rate(step: int, steps: int, warmup: int, peak: float) -> float:
    """Return the learning rate: linear warm-up over ``warmup`` steps, then a cosine to 0; ``step`` counts from 0."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


class Inverter:
    """Optimises batches of canvases against one teacher on one device.

    Each process has one inverter, whose compiled objective all batches share.

    Raises:
        SynthesisError: this teacher cannot make these images.
    """

    def __init__(self, teacher: Teacher, settings: SetSettings, config: InversionSettings, device: torch.device):
        self.teacher = teacher
        self.settings = settings
        self.config = config
        self.device = device
        self.input_size = teacher.image_shape[1:]
        check_synthesis(teacher, settings, config)
        self.canvas_size = config.canvas_size(settings, *self.input_size)
        self.objective = TeacherObjective(teacher, settings, device)
        self.labeller = copy_network(teacher.model).to(device)  # full precision; the user's model stays where it is
        self.units = ImageUnits(teacher, device)
        self._canvases: dict[int, Tensor] = {}  # by batch size
        self._descents: dict[tuple[int, int], _Descent] = {}  # by batch size and scale

    def invert(
        self, targets: Tensor, generator: torch.Generator, on_steps: OnSteps = lambda images: None
    ) -> tuple[Tensor, list[LossPoint]]:
        """Synthesize one image per target, from fresh noise.

        Args:
            targets: (B, num_classes) distributions.
            generator: A generator on the CPU, which draws the noise and every region.
            on_steps: Called after each step with the number of images in it.

        Returns:
            Finished canvases as uint8 (B, C, H', W') on the CPU, and the loss curve.

        Raises:
            SynthesisError: the loss is no longer finite.
        """
        canvas = self._canvas(len(targets))
        with torch.no_grad():
            canvas.copy_(torch.randn(canvas.shape, generator=generator))
        targets = targets.to(self.device)
        curve: list[LossPoint] = []
        finished_steps = 0
        for scale in self.config.scales:
            descent = self._descent(canvas, scale.scale)
            descent.begin()
            record_every = max(1, scale.steps // CURVE_POINTS)
            regions = self._draw_regions(scale, generator)
            numbers = torch.arange(finished_steps, finished_steps + scale.steps, device=self.device)
            for step, (number, rows, columns) in enumerate(zip(numbers, *regions, strict=True)):
                descent.set_lr(learning_rate(step, scale.steps, self.config.warmup_steps, self.config.lr))
                losses = descent.step(targets, number, rows, columns)
                if step % record_every == 0 or step == scale.steps - 1:
                    curve.append(_checked_point(finished_steps + step, losses))
                on_steps(len(targets))
            finished_steps += scale.steps
        return self.teacher.denormalize(self.units.to_teacher(canvas.detach())).cpu(), curve

    def _canvas(self, count: int) -> Tensor:
        """Return the tensor of a batch of ``count`` canvases. It is always the same one: recorded steps need that."""
        if count not in self._canvases:
            shape = (count, self.teacher.image_shape[0], *self.canvas_size)
            self._canvases[count] = torch.zeros(shape, device=self.device, requires_grad=True)
        return self._canvases[count]

    def _descent(self, canvas: Tensor, scale: int) -> _Descent:
        key = (len(canvas), scale)
        if key not in self._descents:
            self._descents[key] = _Descent(self.objective, canvas, scale, self.units, self.config.lr)
        return self._descents[key]

    def _draw_regions(self, scale: ScaleConfig, generator: torch.Generator) -> Lines:
        """Draw the regions of all steps of a scale."""
        height, width, outer_height, outer_width = (
            length // scale.scale for length in (*self.input_size, *self.canvas_size)
        )
        regions = [
            draw_region((outer_height, outer_width), (height, width), self.settings.flip_probability, generator)
            for _ in range(scale.steps)
        ]
        drawn = lines(regions, (height, width))
        return Lines(drawn.rows.to(self.device), drawn.columns.to(self.device))

    @torch.no_grad()
    def label(self, images: Tensor) -> Tensor:
        """Return the teacher's logits, float32 (B, num_classes), on the centres of uint8 canvases."""
        view = center_crop(images.to(self.device), self.input_size)
        logits: Tensor = self.labeller(self.teacher.normalize(view))
        return logits.float().cpu()


class _Descent:
    """Optimiser steps on one batch of canvases at one scale.

    Args:
        objective: The loss.
        canvas: (B, C, H', W'), changed in place.
        scale: Factor by which the canvas is average-pooled before the teacher sees it.
        units: The units of the canvas.
        lr: The highest learning rate of Adam.
    """

    def __init__(self, objective: TeacherObjective, canvas: Tensor, scale: int, units: ImageUnits, lr: float):
        self.objective, self.canvas, self.scale, self.units = objective, canvas, scale, units
        on_gpu = canvas.device.type == "cuda"
        rate = torch.tensor(lr, device=canvas.device) if on_gpu else lr
        self.optimizer = torch.optim.Adam([canvas], lr=rate, betas=BETAS, fused=True, capturable=on_gpu)
        self.step: GraphedCall[dict[str, Tensor]] = GraphedCall(self._step, canvas.device)

    def begin(self) -> None:
        """Reset the optimiser, in place."""
        for state in self.optimizer.state.values():
            for value in state.values():
                value.zero_()

    def set_lr(self, rate: float) -> None:
        """Set the learning rate of the next step."""
        group = self.optimizer.param_groups[0]
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate

    def _step(self, targets: Tensor, number: Tensor, rows: Tensor, columns: Tensor) -> dict[str, Tensor]:
        scaled = self.canvas if self.scale == 1 else F.avg_pool2d(self.canvas, self.scale)
        images = self.units.to_teacher(crop_lines(scaled, Lines(rows, columns)))
        losses = self.objective(images, targets, number)
        (self.canvas.grad,) = torch.autograd.grad(losses["total"], self.canvas)
        self.optimizer.step()
        with torch.no_grad():
            self.canvas.clamp_(self.units.lowest, self.units.highest)
        return {name: value.detach() for name, value in losses.items()}


def _checked_point(step: int, losses: dict[str, Tensor]) -> LossPoint:
    numbers: list[float] = torch.stack(list(losses.values())).tolist()
    values = {name: round(value, 6) for name, value in zip(losses, numbers, strict=True)}
    if not all(map(math.isfinite, values.values())):
        raise SynthesisError(
            f"The synthesis loss is not finite at step {step}: {values}. Lower synthesis.method.lr, or the weight of the term "
            "that grew."
        )
    return LossPoint(step, values)
