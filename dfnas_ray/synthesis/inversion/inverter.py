"""Model inversion: noise becomes images that the teacher recognises.

Source: Yin et al. 2020, arXiv:1912.08795, and Liu et al. 2022, arXiv:2112.02086. Written from the formulas.
Shapes: canvases (B, C, H', W') with H' >= H; what the teacher sees is (B, C, H, W), or smaller at coarse scales.
"""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from dfnas_ray.errors import SynthesisError
from dfnas_ray.ops.regions import center_crop, crop, draw_region
from dfnas_ray.synthesis.base import LossPoint, OnSteps
from dfnas_ray.synthesis.checks import check_synthesis
from dfnas_ray.synthesis.inversion.config import InversionSettings
from dfnas_ray.synthesis.objective import TeacherObjective
from dfnas_ray.synthesis.settings import SetSettings
from dfnas_ray.teachers.base import Teacher

CURVE_POINTS = 40  # per batch and scale
BETAS = (0.5, 0.9)


def learning_rate(step: int, steps: int, warmup: int, peak: float) -> float:
    """Linear warm-up over ``warmup`` steps, then a cosine to 0 at ``steps``; ``step`` counts from 0."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


class Inverter:
    """Optimises batches of canvases against one teacher on one device.

    Made once per process: the compiled objective is shared by all batches.

    Raises:
        SynthesisError: these images cannot be asked of this teacher.
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
        self.labeller = copy.deepcopy(teacher.model).to(device)  # full precision; the user's model stays where it is
        mean, std = (torch.tensor(v, device=device).view(1, -1, 1, 1) for v in (teacher.mean, teacher.std))
        self.lowest, self.highest = (0 - mean) / std, (1 - mean) / std

    def invert(
        self, targets: Tensor, generator: torch.Generator, on_steps: OnSteps = lambda images: None
    ) -> tuple[Tensor, list[LossPoint]]:
        """Synthesize one image per target, from fresh noise.

        Args:
            targets: (B, num_classes) distributions.
            generator: On the CPU; draws the noise and every region.
            on_steps: Called after each step with the number of images that made it.

        Returns:
            Finished canvases as uint8 (B, C, H', W') on the CPU, and the loss curve.

        Raises:
            SynthesisError: the loss is no longer finite.
        """
        shape = (len(targets), self.teacher.image_shape[0], *self.canvas_size)
        canvas = torch.randn(shape, generator=generator).to(self.device).requires_grad_()
        targets = targets.to(self.device)
        curve: list[LossPoint] = []
        finished_steps = 0
        for scale in self.config.scales:
            optimizer = torch.optim.Adam([canvas], lr=self.config.lr, betas=BETAS, fused=True)
            record_every = max(1, scale.steps // CURVE_POINTS)
            for step in range(scale.steps):
                optimizer.param_groups[0]["lr"] = learning_rate(
                    step, scale.steps, self.config.warmup_steps, self.config.lr
                )
                losses = self._losses(canvas, targets, scale.scale, generator, finished_steps + step)
                (canvas.grad,) = torch.autograd.grad(losses["total"], canvas)
                optimizer.step()
                with torch.no_grad():
                    canvas.clamp_(self.lowest, self.highest)
                if step % record_every == 0 or step == scale.steps - 1:
                    curve.append(_checked_point(finished_steps + step, losses))
                on_steps(len(targets))
            finished_steps += scale.steps
        return self.teacher.denormalize(canvas.detach()).cpu(), curve

    def _losses(
        self, canvas: Tensor, targets: Tensor, scale: int, generator: torch.Generator, step: int
    ) -> dict[str, Tensor]:
        scaled = canvas if scale == 1 else F.avg_pool2d(canvas, scale)
        height, width = self.input_size
        size = (height // scale, width // scale)
        region = draw_region((scaled.shape[-2], scaled.shape[-1]), size, self.settings.flip_probability, generator)
        return self.objective(crop(scaled, region, size), targets, step)

    @torch.no_grad()
    def label(self, images: Tensor) -> Tensor:
        """Return the teacher's logits, float32 (B, num_classes), on the centres of uint8 canvases."""
        view = center_crop(images.to(self.device), self.input_size)
        logits: Tensor = self.labeller(self.teacher.normalize(view))
        return logits.float().cpu()


def _checked_point(step: int, losses: dict[str, Tensor]) -> LossPoint:
    values = {name: round(value.item(), 6) for name, value in losses.items()}
    if not all(map(math.isfinite, values.values())):
        raise SynthesisError(
            f"The synthesis loss is not finite at step {step}: {values}. Lower synthesis.method.lr, or the weight of the term "
            "that grew."
        )
    return LossPoint(step, values)
