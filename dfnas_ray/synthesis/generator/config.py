"""Settings of the generator. The defaults were measured on CIFAR-10 (experiments/results/images.md)."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from dfnas_ray.config.registry import SettingValues
from dfnas_ray.errors import SynthesisError
from dfnas_ray.limits import MANY, MAX_PARAMETERS, SEVERAL, WIDE
from dfnas_ray.ops.cost import make_without_memory
from dfnas_ray.synthesis.base import Rehearsal, StepKind, SynthesizerConfig
from dfnas_ray.synthesis.generator.network import ImageGenerator, is_reached
from dfnas_ray.synthesis.settings import SetSettings
from dfnas_ray.teachers.base import Teacher
from dfnas_ray.teachers.fresh import why_not_fresh
from dfnas_ray.training.config import OptimizerConfig

_WARMUP_BATCHES = 20
_REHEARSED = 4  # steps of the student in a rehearsal, to estimate the time of all


class StudentSettings(BaseModel):
    """The network that learns beside a generator. It shows the generator which images can still teach something."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(60, gt=0, le=MANY, description="Optimiser steps after each batch of the generator.")
    batch_size: int = Field(128, gt=0, le=MANY, description="Images of one step, drawn from all that were made so far.")
    temperature: float = Field(4.0, gt=0, description="Temperature T of the distillation: KL divergence times T^2.")
    warmup_batches: int = Field(
        15, ge=0, le=MANY, description="Batches that the generator makes before the student joins."
    )
    optimizer: OptimizerConfig = OptimizerConfig(weight_decay=5e-4)
    compile: bool | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="Use torch.compile for the student and its teacher on a CPU; worth its minute from some 2,000 steps.",
    )


class GeneratorSettings(SynthesizerConfig):
    """A network makes the images. It learns from batch to batch how to make them in a few steps.

    Source: Fang et al. 2022, arXiv:2112.06253.
    """

    kind: Literal["generator"] = "generator"

    batch_size: int = Field(200, gt=0, le=MANY, description="Images made together on one device.")
    streams: int = Field(
        1,
        gt=0,
        le=SEVERAL,
        description="Number of generators, each with its student, that work in parallel. The images depend on it.",
    )
    latent_dim: int = Field(256, gt=0, le=WIDE, description="Dimensions of the noise from which an image is made.")
    width: int = Field(
        48,
        gt=0,
        le=WIDE,
        description="Channels of the generator's feature maps of 32 pixels; twice as many below, half as many at 64.",
    )
    adaptation_steps: int = Field(
        5, gt=0, le=MANY, description="Adam steps on a copy of the generator, which then makes one batch."
    )
    lr: float = Field(5e-3, gt=0, description="Adam step size of the generator's weights.")
    latent_lr: float = Field(1e-2, gt=0, description="Adam step size of the noise.")
    meta_rate: float = Field(
        0.3,
        ge=0,
        le=1,
        description="Share of each batch's weight change that the generator keeps (Reptile); 0: it learns nothing.",
    )
    bn_momentum: float = Field(
        0.9,
        ge=0,
        lt=1,
        description="Weight of earlier batches in the statistics that R_bn compares; 0: only the batch itself counts.",
    )
    calibrated: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of images whose targets are the teacher's soft labels of earlier images of their class.",
    )
    tau: float = Field(1.0, gt=0, description="Temperature of these soft labels: softmax(logits / tau).")
    pool_limit: int | None = Field(
        None,
        gt=0,
        le=MANY,
        description="Maximum number of images in the student's pool: the latest ones. By default all of its stream.",
    )
    student: StudentSettings | None = StudentSettings()

    @property
    def warmup_images(self) -> int:
        """See `SynthesizerConfig`: the batches before the student joins, and a few after that."""
        return (_WARMUP_BATCHES if self.student is None else self.student.warmup_batches + 5) * self.batch_size

    @property
    def default_regularizers(self) -> SettingValues:
        """See `SynthesizerConfig`."""
        return {
            "bn_statistics": {"weight": 2.0, "first_layer_multiplier": 1.0},
            "total_variation": {"weight": 0.0},  # the generator's images are smooth without it
            "l2": {"weight": 0.0},
            "adversarial": {"weight": 2.0 if self.student else 0.0},
        }

    @property
    def steps_per_image(self) -> float:
        """See `SynthesizerConfig`: the student's steps count as well."""
        student = self.student
        return self.adaptation_steps + (student.steps * student.batch_size / self.batch_size if student else 0)

    def image_steps(self, settings: SetSettings, shard: int) -> int:
        """See `SynthesizerConfig`: the student joins after its warm-up."""
        batches = settings.images_per_shard // self.batch_size
        adaptation = settings.images_per_shard * self.adaptation_steps
        if self.student is None:
            return adaptation
        made = batches * (1 + shard // self.streams)  # by the end of this shard
        learning = min(batches, max(0, made - self.student.warmup_batches))
        return adaptation + learning * self.student.steps * self.student.batch_size

    def canvas_size(self, settings: SetSettings, height: int, width: int) -> tuple[int, int]:
        """See `SynthesizerConfig`: by default one that doublings of a small map end at, if there is one near."""
        margin = settings.margin(height, width, multiple=4 if min(height, width) >= 28 else 2)
        if settings.canvas_margin is None:
            margin = min(
                (other for other in range(min(height, width) // 2) if is_reached(height + other, width + other)),
                key=lambda other: (abs(other - margin), -other),
                default=margin,
            )
        return height + margin, width + margin

    def check_settings(self, settings: SetSettings) -> None:
        """See `SynthesizerConfig`."""
        if self.pool_limit is not None and self.pool_limit < self.batch_size:
            raise ValueError(
                f"method.pool_limit ({self.pool_limit}) must not be below method.batch_size ({self.batch_size}): a "
                "batch has to fit."
            )
        if self.streams > settings.num_shards:
            raise ValueError(
                f"method.streams ({self.streams}) must not be above num_shards ({settings.num_shards}): each stream makes "
                "whole shards. Lower it, or raise num_shards."
            )

    @property
    def has_student(self) -> bool:
        """See `SynthesizerConfig`."""
        return self.student is not None

    def rehearsal(self, settings: SetSettings, most: int) -> Rehearsal:
        """See `SynthesizerConfig`: two batches, after the first of which the student has joined."""
        batch = min(self.batch_size, most)
        batches = sum(self.num_batches(stream, settings) for stream in range(self.streams))
        adaptation = batches * self.adaptation_steps * self.batch_size / batch
        if self.student is None:
            small = self.model_copy(update={"batch_size": batch})
            return Rehearsal(small, 2 * batch, (StepKind(1, 1 + self.adaptation_steps, adaptation),))
        drawn = min(self.student.batch_size, most)
        changes = {"steps": _REHEARSED, "batch_size": drawn, "warmup_batches": 0, "compile": False}
        student = self.student.model_copy(update=changes)
        learning = sum(
            max(0, self.num_batches(stream, settings) - self.student.warmup_batches) for stream in range(self.streams)
        )
        small = self.model_copy(update={"batch_size": batch, "student": student, "streams": 1, "pool_limit": None})
        second = self.adaptation_steps + _REHEARSED
        parts = (
            StepKind(second, second + self.adaptation_steps, adaptation),
            StepKind(
                second + self.adaptation_steps + 1,
                2 * second,
                learning * self.student.steps * self.student.batch_size / drawn,
                bool(self.student.compile),
            ),
        )
        return Rehearsal(small, 2 * batch, parts)

    def check_teacher(self, teacher: Teacher, settings: SetSettings) -> None:
        """See `SynthesizerConfig`: the generator must not be too large, and the student must be possible."""
        size, pixels = self.canvas_size(settings, *teacher.image_shape[1:]), [0.0] * teacher.image_shape[0]
        generator = make_without_memory(lambda: ImageGenerator(self.latent_dim, size, self.width, pixels, pixels))
        if (parameters := sum(each.numel() for each in generator.parameters())) > MAX_PARAMETERS:
            raise SynthesisError(
                f"synthesis.method.width ({self.width:,}) and latent_dim ({self.latent_dim:,}) make a generator of "
                f"{parameters:,} parameters; at most {MAX_PARAMETERS:,} are allowed. Lower them."
            )
        if self.student is not None and (reason := why_not_fresh(teacher.model)):
            raise SynthesisError(
                f"A student like teacher {teacher.name} cannot be made: {reason}. Set synthesis.method.student=null."
            )

    def predecessor(self, shard: int, settings: SetSettings) -> int | None:
        """See `SynthesizerConfig`: the streams take turns."""
        return shard - self.streams if shard >= self.streams else None

    def pool_size(self, stream: int, settings: SetSettings) -> int:
        """Return how many images a stream keeps in memory."""
        images = self.num_batches(stream, settings) * self.batch_size
        return images if self.pool_limit is None else min(images, self.pool_limit)

    def num_batches(self, stream: int, settings: SetSettings) -> int:
        """Return how many batches a stream makes, through all its shards."""
        shards = len(range(stream, settings.num_shards, self.streams))
        return shards * settings.images_per_shard // self.batch_size
