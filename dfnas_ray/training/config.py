"""Settings of training a student, alone or as a supernet."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dfnas_ray.limits import MANY, SEVERAL
from dfnas_ray.ops.precision import Precision
from dfnas_ray.sources import ImagesConfig, SyntheticSource


class AugmentationConfig(BaseModel):
    """How a synthetic image is varied before the student sees it. Needs labels: online."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    random_crop: bool = Field(True, description="A random region of the canvas instead of its centre.")
    flip_probability: float = Field(
        0.5, ge=0, le=1, description="Mirrored images; 0 where mirroring changes the class."
    )
    mixup: float = Field(0.0, ge=0, le=1, description="Share of batches whose images are mixed in pairs.")
    crop_area: tuple[float, float] | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="In place of random_crop: a crop of each image, of a share of the canvas between these two, resized. The "
        "published search takes [0.08, 1].",
    )
    color_jitter: float = Field(
        0.0,
        ge=0,
        le=1,
        exclude_if=lambda value: value == 0,
        description="By how much brightness, contrast and saturation of each image change; the published search takes 0.4.",
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
        "online", description="The shard's logits of the unvaried image, or the teacher asked about each varied one."
    )
    temperature: float = Field(3.0, gt=0, description="T; the gradient's size does not depend on it.")
    augmentation: AugmentationConfig | None = Field(None, description="By default crops and flips with online labels.")

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
        """The augmentation in force."""
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
    nesterov: bool = Field(True, description="Nesterov's momentum instead of the plain one.")
    weight_decay: float = Field(3e-4, ge=0)
    clip_norm: float = Field(5.0, gt=0, description="Largest norm of the gradient.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr ({self.min_lr}) must not be above lr ({self.lr}).")
        return self


class LabelConfig(BaseModel):
    """Learning from the images' own labels: cross entropy, beside or in place of the teacher.

    The loss is (1 - weight) times that of distillation, plus weight times the cross entropy.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: float = Field(1.0, gt=0, le=1, description="Share of the labels in the loss; 1: the teacher is not asked.")
    smoothing: float = Field(0.1, ge=0, lt=1, description="Of the labels: this share is spread over all classes.")


class RetrainingConfig(BaseModel):
    """Training the chosen architecture from scratch, on synthetic images unless the file says otherwise."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(100, gt=0, le=MANY, description="Passes over the synthetic training images.")
    batch_size: int = Field(128, gt=0, le=MANY, description="Images per step, over all workers.")
    optimizer: OptimizerConfig = OptimizerConfig()
    distillation: DistillationConfig = DistillationConfig()
    images: ImagesConfig = Field(
        SyntheticSource(), description="What it learns from; real images need allow_real_images."
    )
    labels: LabelConfig | None = Field(
        None, description="Also, or only, learn from the images' own labels; null: from the teacher alone."
    )
    baseline: bool = Field(
        True, description="Also train a random architecture of the same budget, to see what the search was worth."
    )
    drop_path: float = Field(
        0.0, ge=0, lt=1, description="Share of paths dropped at the end of training, growing from 0; DARTS cells only."
    )
    auxiliary_weight: float = Field(
        0.0, ge=0, description="Weight of an auxiliary classifier's loss; DARTS networks only (the paper: 0.4)."
    )
    precision: Precision = Field(
        "auto", description="Of the convolutions; auto takes bfloat16 where the hardware has it."
    )
    num_workers: int = Field(
        1,
        gt=0,
        le=SEVERAL,
        description="Ray Train workers; more than one train with DDP, each on a GPU of its own or all on CPUs.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.batch_size % self.num_workers:
            raise ValueError(
                f"batch_size ({self.batch_size}) must be a multiple of num_workers ({self.num_workers}). "
                f"Next multiple: {-(-self.batch_size // self.num_workers) * self.num_workers}."
            )
        if self.labels is not None:
            if not self.images.is_labelled:
                raise ValueError(
                    f"labels needs images that have labels of their own, and those of {self.images.kind} have none but the "
                    "teacher's. Leave labels out, or give images: {kind: real, dataset: ...}."
                )
            variation = self.distillation.variation
            if variation is not None and variation.mixup:
                raise ValueError(
                    f"labels cannot follow images that are mixed in pairs: distillation.augmentation.mixup "
                    f"({variation.mixup:g}). Set mixup to 0, or leave labels out."
                )
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """What a network depends on beside its images, in the form of before there was a choice of images."""
        rest = {"baseline", "images", *({"labels"} if self.labels is None else ())}
        return self.model_dump(mode="json", exclude=rest)
