"""Settings for training a student, alone or as a supernet."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dfnas_ray.limits import MANY, SEVERAL
from dfnas_ray.ops.precision import Precision
from dfnas_ray.sources import ImagesConfig, SyntheticSource


class AugmentationConfig(BaseModel):
    """How a synthetic image is varied before the student sees it. Needs labels: online."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    random_crop: bool = Field(True, description="Use a random region of the canvas instead of its centre.")
    flip_probability: float = Field(
        0.5, ge=0, le=1, description="Share of mirrored images; set 0 if mirroring changes the class."
    )
    mixup: float = Field(0.0, ge=0, le=1, description="Share of batches whose images are mixed in pairs.")
    crop_area: tuple[float, float] | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="Instead of random_crop: a resized crop of each image, whose share of the canvas is between these "
        "two. The published search uses [0.08, 1].",
    )
    color_jitter: float = Field(
        0.0,
        ge=0,
        le=1,
        exclude_if=lambda value: value == 0,
        description="Strength of changes of brightness, contrast and saturation; the published search uses 0.4.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.crop_area is not None and not 0 < self.crop_area[0] <= self.crop_area[1] <= 1:
            raise ValueError(
                f"crop_area {list(self.crop_area)} must be two shares above 0 and up to 1, the smaller one first, such as "
                "[0.08, 1]."
            )
        return self


class DistillationConfig(BaseModel):
    """Learning from the teacher: KL divergence at temperature T, times T^2."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: Literal["stored", "online"] = Field(
        "online",
        description="stored: the shard's logits of the unvaried image; online: the teacher's on each varied image.",
    )
    temperature: float = Field(3.0, gt=0, description="T; the size of the gradient does not depend on it.")
    augmentation: AugmentationConfig | None = Field(None, description="By default crops and flips, with online labels.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.labels == "stored" and self.augmentation is not None:
            raise ValueError(
                "augmentation needs labels: online, because stored labels describe the unvaried images. "
                "Remove augmentation or set labels to online."
            )
        return self

    @property
    def variation(self) -> AugmentationConfig | None:
        """The augmentation that is used; None with stored labels."""
        if self.labels == "stored":
            return None
        return self.augmentation or AugmentationConfig()


class OptimizerConfig(BaseModel):
    """SGD with momentum and a cosine schedule over all steps."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lr: float = Field(0.1, gt=0, description="Highest learning rate.")
    min_lr: float = Field(0.0, ge=0, description="Learning rate at the end of the cosine.")
    warmup_fraction: float = Field(0.05, ge=0, lt=1, description="Share of the steps with linear warm-up.")
    momentum: float = Field(0.9, ge=0, lt=1)
    nesterov: bool = Field(True, description="Use Nesterov momentum instead of plain momentum.")
    weight_decay: float = Field(3e-4, ge=0)
    clip_norm: float = Field(5.0, gt=0, description="Largest norm of the gradient; larger gradients are clipped.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr ({self.min_lr}) must not be above lr ({self.lr}).")
        return self


class LabelConfig(BaseModel):
    """Learning from the images' own labels by cross entropy, in addition to the teacher or instead of it.

    The loss is (1 - weight) times the distillation loss plus weight times the cross entropy.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: float = Field(
        1.0, gt=0, le=1, description="Share of the labels in the loss; with 1 the teacher is not used."
    )
    smoothing: float = Field(0.1, ge=0, lt=1, description="Label smoothing: this share is spread over all classes.")


class RetrainingConfig(BaseModel):
    """Training the chosen architecture from scratch, on synthetic images unless the file says otherwise."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(100, gt=0, le=MANY, description="Passes over the synthetic training images.")
    batch_size: int = Field(128, gt=0, le=MANY, description="Images per step, over all workers.")
    optimizer: OptimizerConfig = OptimizerConfig()
    distillation: DistillationConfig = DistillationConfig()
    images: ImagesConfig = Field(
        SyntheticSource(), description="Images to train on; real images need allow_real_images."
    )
    labels: LabelConfig | None = Field(
        None, description="Learn from the images' own labels, too, or only from them; null: only from the teacher."
    )
    baseline: bool = Field(
        True, description="Also train a random architecture with similar MACs, to see what the search gained."
    )
    drop_path: float = Field(
        0.0, ge=0, lt=1, description="Share of paths dropped at the end of training, growing from 0; DARTS cells only."
    )
    auxiliary_weight: float = Field(
        0.0, ge=0, description="Weight of an auxiliary classifier's loss; DARTS networks only (the paper: 0.4)."
    )
    precision: Precision = Field(
        "auto", description="Precision of the convolutions; auto uses bfloat16 where the hardware supports it."
    )
    compile: bool | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="Use torch.compile for the network and its teacher on a CPU; up to two minutes, and cells gain little.",
    )
    num_workers: int = Field(
        1,
        gt=0,
        le=SEVERAL,
        description="Number of Ray Train workers; several train with DDP, each on its own GPU or all on CPUs.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.batch_size % self.num_workers:
            raise ValueError(
                f"batch_size ({self.batch_size}) must be a multiple of num_workers ({self.num_workers}). "
                f"Next multiple: {-(-self.batch_size // self.num_workers) * self.num_workers}."
            )
        if self.compile and self.num_workers > 1:
            raise ValueError(
                f"compile needs a single worker, not num_workers {self.num_workers}. Leave it out, or set num_workers to 1."
            )
        if self.compile and self.drop_path:
            raise ValueError(
                f"compile cannot be used with drop_path ({self.drop_path:g}), which changes the network in each epoch. Set one "
                "of the two to its default."
            )
        if self.labels is not None:
            if not self.images.is_labelled:
                raise ValueError(
                    f"labels needs images that have labels of their own; images of the kind {self.images.kind} have only the "
                    "teacher's. Leave labels out, or give images: {kind: real, dataset: ...}."
                )
            variation = self.distillation.variation
            if variation is not None and variation.mixup:
                raise ValueError(
                    f"labels cannot be used with images that are mixed in pairs: distillation.augmentation.mixup "
                    f"({variation.mixup:g}). Set mixup to 0, or leave labels out."
                )
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that a network depends on, except the images; the form is the same as in older runs."""
        rest = {"baseline", "images", *({"labels"} if self.labels is None else ())}
        return self.model_dump(mode="json", exclude=rest)
