"""A stream: one generator that makes batch after batch, with its student and its earlier images.

Source: Fang et al. 2022, arXiv:2112.06253, Alg. 1; soft labels as targets from Liu et al. 2022, arXiv:2112.02086. Written from
the formulas.
Shapes: the canvases of one batch are (B, C, H', W'); what the teacher sees is (B, C, H, W).
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from io import BytesIO

import torch
from torch import Tensor

from dfnas_ray import formatting
from dfnas_ray.errors import SynthesisError
from dfnas_ray.ops.compiling import compiled_on_cpu
from dfnas_ray.ops.graphs import GraphedCall
from dfnas_ray.ops.networks import evaluation_mode
from dfnas_ray.ops.precision import autocast
from dfnas_ray.ops.regions import Places, center_crop, crop_each, draw_places
from dfnas_ray.seeding import derive_seed, seed_everything, torch_generator
from dfnas_ray.storage.memory import free_memory
from dfnas_ray.synthesis.base import OnSteps
from dfnas_ray.synthesis.checks import check_first_batch
from dfnas_ray.synthesis.generator.config import GeneratorSettings
from dfnas_ray.synthesis.generator.network import ImageGenerator
from dfnas_ray.synthesis.labels import calibrated_targets, draw_of_classes, one_hot_targets
from dfnas_ray.synthesis.objective import TeacherObjective
from dfnas_ray.synthesis.observed import ObservedTeacher
from dfnas_ray.synthesis.regularizers import Statistics
from dfnas_ray.synthesis.settings import SetSettings
from dfnas_ray.teachers.base import Teacher
from dfnas_ray.teachers.fresh import fresh_copy
from dfnas_ray.training.batches import Batch
from dfnas_ray.training.student import Student

BETAS = (0.5, 0.999)
_COMPILE = "synthesis.method.student.compile"
_WATCHED = 10  # number of the batch that is checked: by then, a generator should make recognisable images


@dataclass(frozen=True)
class MadeBatch:
    """One finished batch.

    Attributes:
        canvases: uint8 (B, C, H', W'), on the CPU.
        logits: float32 (B, num_classes), the teacher's logits on their centres.
        is_calibrated: bool (B,), whether an image asked for soft labels.
        losses: The weighted terms at the last step. Once the student learns, also its mean loss as ``student`` and the
            share of images on which it differs from the teacher as ``student_differs``.
    """

    canvases: Tensor
    logits: Tensor
    is_calibrated: Tensor
    losses: dict[str, float]


class Stream:
    """A generator that makes batch after batch.

    Args:
        teacher: The teacher, on the device.
        settings: The settings of the set.
        config: The settings of the generator.
        device: The device of the generator and its student.
        seed: The seed of the set.
        number: The number of the stream.
    """

    def __init__(
        self,
        teacher: Teacher,
        settings: SetSettings,
        config: GeneratorSettings,
        device: torch.device,
        seed: int,
        number: int,
    ):
        self.teacher, self.settings, self.config, self.device = teacher, settings, config, device
        self.seed, self.number = seed, number
        self.input_size = teacher.image_shape[1:]
        self.canvas_size = canvas = config.canvas_size(settings, *self.input_size)
        seed_everything(derive_seed(seed, "stream", number))
        generator = ImageGenerator(config.latent_dim, canvas, config.width, teacher.mean, teacher.std)
        self.generator = generator.to(device).to(memory_format=torch.channels_last)
        self.adapted = copy.deepcopy(self.generator).train()
        self.noise = torch.zeros((config.batch_size, config.latent_dim), device=device, requires_grad=True)
        self.learners = [*self.adapted.parameters(), self.noise]
        self.optimizer = torch.optim.Adam(
            [
                {"params": list(self.adapted.parameters()), "lr": config.lr},
                {"params": [self.noise], "lr": config.latent_lr},
            ],
            betas=BETAS,
            fused=True,
            capturable=device.type == "cuda",
        )
        # Recorded separately for the first batch, which has no past, and before and after the student joins.
        self._adaptations: defaultdict[tuple[bool, bool], GraphedCall[dict[str, Tensor]]] = defaultdict(
            lambda: GraphedCall(self._adapt_once, device)
        )
        self._learning = GraphedCall(self._learn_once, device)
        self.num_batches = config.num_batches(number, settings)
        self.student = None if config.student is None else self._new_student()
        student_model = None if self.student is None else self.student.model
        self._forward: Callable[[Tensor], Tensor] | None = student_model
        self._label: Callable[[Tensor], Tensor] = teacher.model
        if config.student is not None and config.student.compile:
            assert student_model is not None
            self._forward = compiled_on_cpu(student_model, _COMPILE, device)
            self._label = compiled_on_cpu(teacher.model, _COMPILE, device, is_frozen=True)
        self.objective = TeacherObjective(teacher, settings, device, student_model)
        self.observed = ObservedTeacher(teacher.model).to(device).to(memory_format=torch.channels_last)
        mean, std = (torch.tensor(v, device=device).view(1, -1, 1, 1) for v in (teacher.mean, teacher.std))
        self.mean, self.std = mean, std
        self.past: list[Statistics] | None = None
        self.batches = 0
        images = config.pool_size(number, settings)
        shape = (teacher.image_shape[0], *canvas)
        _check_room(images, shape, teacher.num_classes, device)
        self.canvases = torch.empty((images, *shape), dtype=torch.uint8, device=device)
        self.logits = torch.empty((images, teacher.num_classes), device=device)

    def _new_student(self) -> Student:
        config = self.config.student
        assert config is not None
        learning = max(0, self.num_batches - config.warmup_batches)
        student = Student(
            fresh_copy(self.teacher.model).to(self.device),
            config.optimizer,
            config.temperature,
            max(1, learning * config.steps),
            self.settings.precision,
        )
        student.make_recordable()
        return student

    @property
    def pool_size(self) -> int:
        """Number of images in the pool: all that were made so far, or the latest of them."""
        return min(self.batches * self.config.batch_size, len(self.canvases))

    @property
    def student_has_joined(self) -> bool:
        """Whether the student has learned anything."""
        return self.config.student is not None and self.batches > self.config.student.warmup_batches

    def make_batch(self, classes: Tensor, on_steps: OnSteps) -> MadeBatch:
        """Make one image for each class asked for, (B,). The generator and the student learn from them.

        Raises:
            SynthesisError: the loss is no longer finite.
        """
        random = torch_generator(self.seed, "stream", self.number, "batch", self.batches)
        seed_everything(derive_seed(self.seed, "stream", self.number, "batch", self.batches))
        targets, is_calibrated = self._targets(classes, random)
        canvases, losses = self._adapt(targets, random, on_steps)
        logits = self._keep(canvases)
        if self.batches == _WATCHED and not is_calibrated.any():
            steps = _WATCHED * self.config.adaptation_steps
            check_first_batch(self.teacher, classes, logits.cpu(), steps, fell=None)
        if self.student_has_joined:
            losses["student_differs"] = self._differences(canvases, logits)
            losses["student"] = self._teach(on_steps)
        return MadeBatch(canvases.cpu(), logits.cpu(), is_calibrated, losses)

    def _targets(self, classes: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the targets, (B, num_classes), and which of them are soft labels of earlier images, (B,).

        A soft label comes from an image of the class asked for, as in the inversion, so that the images' labels hold. The
        target of a class without such an image stays one-hot.
        """
        targets = one_hot_targets(classes, self.teacher.num_classes)
        is_calibrated = torch.rand(len(classes), generator=random) < self.config.calibrated
        is_calibrated &= self.pool_size > 0
        if is_calibrated.any():
            named = self.logits[: self.pool_size].argmax(1).cpu()
            chosen, has_image = draw_of_classes(named, classes, self.teacher.num_classes, random)
            is_calibrated &= has_image
            soft = calibrated_targets(self.logits[chosen.to(self.device)].cpu(), self.config.tau)
            targets = torch.where(is_calibrated[:, None], soft, targets)
        return targets.to(self.device), is_calibrated

    def _adapt(self, targets: Tensor, random: torch.Generator, on_steps: OnSteps) -> tuple[Tensor, dict[str, float]]:
        """Adapt a copy of the generator in a few steps, make one batch with it, and move the generator towards it."""
        config = self.config
        self._begin_batch(random)
        if self.student is not None:
            evaluation_mode(self.student.model).requires_grad_(False)  # only the images need a gradient here
        adapt = self._adaptations[self.past is None, self.student_has_joined]
        steps = torch.arange(config.adaptation_steps, device=self.device)
        places = [self._draw_places(len(targets), random) for _ in steps]
        losses: dict[str, Tensor] = {}
        for step, *place in zip(steps, *_moved(places, self.device), strict=True):
            losses = adapt(targets, step, *place)
            on_steps(len(targets))
        with torch.no_grad():
            with self._autocast():
                canvases = self.adapted(self.noise)
            for kept, new in zip(self.generator.parameters(), self.adapted.parameters(), strict=True):
                kept.lerp_(new, config.meta_rate)
            for statistic, latest in zip(self.generator.buffers(), self.adapted.buffers(), strict=True):
                statistic.copy_(latest)
        values = {name: round(value.item(), 6) for name, value in losses.items()}
        if not all(map(math.isfinite, values.values())):
            raise SynthesisError(
                f"The synthesis loss is not finite in batch {self.batches}: {values}. Lower synthesis.method.lr, or the "
                "weight of the term that grew."
            )
        return (canvases * 255).round().to(torch.uint8), values

    @torch.no_grad()
    def _begin_batch(self, random: torch.Generator) -> None:
        """Reset the copy to the generator's weights, draw new noise, and reset the optimiser, all in place."""
        self.adapted.load_state_dict(self.generator.state_dict())
        self.noise.copy_(torch.randn(self.noise.shape, generator=random))
        for state in self.optimizer.state.values():
            for value in state.values():
                value.zero_()

    def _adapt_once(self, targets: Tensor, step: Tensor, *place: Tensor) -> dict[str, Tensor]:
        with self._autocast():
            canvases = self.adapted(self.noise)
        images = (crop_each(canvases, Places(*place), self.input_size) - self.mean) / self.std
        losses = self.objective(images, targets, step, self.past, self.student_has_joined)
        gradients = torch.autograd.grad(losses["total"], self.learners)
        for parameter, gradient in zip(self.learners, gradients, strict=True):
            parameter.grad = gradient
        self.optimizer.step()
        return {name: value.detach() for name, value in losses.items()}

    def _draw_places(self, count: int, random: torch.Generator) -> Places:
        return draw_places(count, self.canvas_size, self.input_size, self.settings.flip_probability, random)

    @torch.no_grad()
    def _keep(self, canvases: Tensor) -> Tensor:
        """Put finished canvases into the pool, and update the running BatchNorm statistics. Return their logits."""
        view = self.teacher.normalize(center_crop(canvases, self.input_size))
        logits, bn_inputs = self.observed(view.contiguous(memory_format=torch.channels_last))
        self._put(canvases, logits.float(), self.batches * self.config.batch_size)
        self.batches += 1
        share = self.config.bn_momentum
        if share and "bn_inputs" in self.objective.observes:
            moments = [_moments(layer.x) for layer in bn_inputs]
            if self.past is None:
                self.past = [Statistics(mean, var, share) for mean, var in moments]
            for before, (mean, var) in zip(self.past, moments, strict=True):
                before.mean.lerp_(mean, 1 - share)
                before.var.lerp_(var, 1 - share)
        result: Tensor = logits.float()
        return result

    def _put(self, canvases: Tensor, logits: Tensor, first: int) -> None:
        """Put images into the pool, where they replace the oldest. ``first`` is the first image's number."""
        places = (torch.arange(len(canvases), device=self.device) + first) % len(self.canvases)
        self.canvases[places], self.logits[places] = canvases.to(self.device), logits.to(self.device)

    @torch.no_grad()
    def _differences(self, canvases: Tensor, logits: Tensor) -> float:
        """Return the share of images on which the student differs from the teacher, before it learns from them."""
        assert self.student is not None
        view = self.teacher.normalize(center_crop(canvases, self.input_size))
        guesses = evaluation_mode(self.student.model)(view.contiguous(memory_format=torch.channels_last)).argmax(1)
        return round(float((guesses != logits.argmax(1)).float().mean()), 6)

    def _teach(self, on_steps: OnSteps) -> float:
        """Train the student on images drawn from the whole pool. Return its mean loss."""
        config = self.config.student
        assert config is not None
        assert self.student is not None
        self.student.model.requires_grad_(True)
        random = torch_generator(self.seed, "stream", self.number, "student", self.batches)
        draws = [
            (
                torch.randint(0, self.pool_size, (config.batch_size,), generator=random),
                *self._draw_places(config.batch_size, random),
            )
            for _ in range(config.steps)
        ]
        sum_of_losses = torch.zeros((), dtype=torch.float64, device=self.device)
        for chosen, *place in zip(*_moved(draws, self.device), strict=True):
            self.student.begin_step()
            sum_of_losses += self._learning(chosen, *place)
            on_steps(config.batch_size)
        total = sum_of_losses.item()
        if not math.isfinite(total):
            raise SynthesisError(
                f"The student's loss is not finite after batch {self.batches - 1}. Lower synthesis.method.student.optimizer.lr."
            )
        return round(total / config.steps, 6)

    def _learn_once(self, chosen: Tensor, *place: Tensor) -> Tensor:
        assert self.student is not None
        images = self.teacher.normalize(crop_each(self.canvases[chosen], Places(*place), self.input_size))
        with torch.no_grad(), self._autocast():
            logits = self._label(images.clone())  # a copy, because a network may change its input in place
        return self.student.learn(Batch(images, logits), self._forward)

    def _autocast(self) -> AbstractContextManager[None]:
        return autocast(self.device, self.objective.dtype)

    # What the next shard goes on from

    def state(self) -> bytes:
        """Return the state as bytes, without the pool, which is in the shards. It holds only tensors and numbers."""
        buffer = BytesIO()
        past = None if self.past is None else [(before.mean, before.var) for before in self.past]
        student = None if self.student is None else self.student.state_dict()
        torch.save(
            {"batches": self.batches, "generator": self.generator.state_dict(), "past": past, "student": student},
            buffer,
        )
        return buffer.getvalue()

    def load(self, state: bytes, canvases: list[Tensor], logits: list[Tensor]) -> None:
        """Go on from where `state` was called.

        Args:
            state: What `state` returned.
            canvases: The canvases of all earlier shards, in order. Shards that the pool no longer holds may be left
                out.
            logits: Their logits, one tensor for each shard.
        """
        found = torch.load(BytesIO(state), map_location=self.device, weights_only=True)
        self.batches = found["batches"]
        self.generator.load_state_dict(found["generator"])
        if found["past"] is not None:
            self.past = [Statistics(mean, var, self.config.bn_momentum) for mean, var in found["past"]]
        if self.student is not None:
            self.student.load_state_dict(found["student"])
        first = self.batches * self.config.batch_size - self.pool_size
        self._put(torch.cat(canvases)[-self.pool_size :], torch.cat(logits)[-self.pool_size :], first)


def _check_room(images: int, shape: tuple[int, int, int], num_classes: int, device: torch.device) -> None:
    """Make sure before the first batch that the pool of a stream fits into the device's memory.

    Raises:
        SynthesisError: it does not; says how large it is, and what to change.
    """
    needed = images * (math.prod(shape) + 4 * num_classes)
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()
    if needed > free:
        raise SynthesisError(
            f"The pool of one stream would hold {images:,} images of {'x'.join(map(str, shape))}: {formatting.size(needed)}, and "
            f"{formatting.size(free)} are free. Set synthesis.method.pool_limit, or raise synthesis.method.streams."
        )


def _moved(draws: Sequence[tuple[Tensor, ...]], device: torch.device) -> list[Tensor]:
    """Return the draws of all steps on the device: one tensor (steps, ...) per quantity, so that copies are few."""
    return [torch.stack(values).to(device) for values in zip(*draws, strict=True)]


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    dims = [0, *range(2, x.ndim)]
    x = x.float()
    return x.mean(dims), x.var(dims, correction=0)
