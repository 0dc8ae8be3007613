"""The frozen teacher, its input statistics and its fingerprint."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self, TypeAlias
from weakref import WeakSet

import torch
from pydantic import AfterValidator, Field
from torch import Tensor, nn
from torch.jit import ScriptModule
from torch.nn.modules.batchnorm import _BatchNorm

from dfnas_ray.config.member import MemberConfig
from dfnas_ray.config.registry import describe, is_built_in
from dfnas_ray.datasets.resizing import Crop, Interpolation, Resizing
from dfnas_ray.errors import DfnasError, TeacherError, first_line
from dfnas_ray.limits import LONG_SIDE, MANY, MAX_INPUT
from dfnas_ray.ops.cost import Cost, measure_cost
from dfnas_ray.ops.networks import copy_network, device_of, evaluation_mode, has_statistics, unwrapped
from dfnas_ray.storage.location import Location
from dfnas_ray.teachers.class_names import ClassNames, ClassNamesSetting, check_class_names, read_class_names
from dfnas_ray.teachers.frozen_batch_norms import replace_frozen_batch_norms
from dfnas_ray.teachers.guarded import GuardedNetwork
from dfnas_ray.teachers.source import code_digest, describe_value, values_digest
from dfnas_ray.teachers.trial import cannot_be_copied, check_numbers, check_statistics, try_network

logger = logging.getLogger(__name__)


def _check_shape(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    if (size := math.prod(shape)) > MAX_INPUT:
        raise ValueError(f"one input would have {size:,} values; at most {MAX_INPUT:,} are allowed")
    return shape


Side: TypeAlias = Annotated[int, Field(gt=0, le=LONG_SIDE)]
"""Channels, height or width of an image."""

ImageShape: TypeAlias = Annotated[tuple[Side, Side, Side], AfterValidator(_check_shape)]
"""(C, H, W) of one input."""

Classes: TypeAlias = Annotated[int, Field(gt=1, le=MANY)]
"""Number of classes."""

_frozen: WeakSet[nn.Module] = WeakSet()
"""The networks that `freeze_teacher` has tried."""


@dataclass(frozen=True)
class Teacher:
    """A trained classifier in evaluation mode, without gradients of its own.

    Attributes:
        name: The user's name for it.
        model: The network, which maps normalised images (B, C, H, W) to logits (B, num_classes).
        image_shape: (C, H, W) of one input.
        mean: Mean per channel, of pixels in [0, 1], as in the teacher's own training.
        std: Standard deviation per channel, of the same pixels.
        origin: What decides how the model computes, but may not show in its layers and weights: the function that built
            it, the arguments, and the user's code.
        class_names: Names of the classes, in the order of the logits; None if they are unknown. No computation depends
            on them, and the fingerprint does not either.
        resizing: What happens to real pictures of another size. No image without data depends on it, nor the fingerprint.
    """

    name: str
    model: nn.Module
    num_classes: int
    image_shape: ImageShape
    mean: tuple[float, ...]
    std: tuple[float, ...]
    origin: str = ""
    class_names: ClassNames | None = None
    resizing: Resizing = field(default_factory=Resizing)

    @classmethod
    def from_model(
        cls,
        model: nn.Module,
        image_shape: ImageShape,
        mean: Sequence[float],
        std: Sequence[float],
        name: str = "model",
        num_classes: int | None = None,
        class_names: Sequence[str] | None = None,
        resizing: Resizing | None = None,
    ) -> Teacher:
        """Return a teacher made from a trained classifier. The classifier is copied and not changed.

        Args:
            model: The classifier, which maps normalised images (B, C, H, W) to logits (B, num_classes).
            image_shape: (C, H, W) of its input.
            mean: Mean of the pixels in [0, 1] of its training, one number per channel.
            std: Standard deviation of the same pixels, one number per channel.
            name: The name of the teacher in results.
            num_classes: The expected number of classes. If it is None, the model is called to find it.
            class_names: Names of the classes, in the order of the logits.
            resizing: What happens to real pictures of another size; see `Resizing`.

        Raises:
            TeacherError: the model cannot be copied, does not take such an image, or does not return logits.
        """
        try:
            copied = copy_network(unwrapped(model))
        except Exception as error:  # whatever an attribute of the model raises
            raise TeacherError(cannot_be_copied(f"Teacher {name}", error)) from error
        return freeze_teacher(
            name, copied, image_shape, mean, std, num_classes, class_names=class_names, resizing=resizing
        )

    @cached_property
    def fingerprint(self) -> str:
        """Sha256 of origin, layers, weights and input statistics. Everything that depends on the teacher records it."""
        digest = hashlib.sha256()
        facts = [self.num_classes, self.image_shape, self.mean, self.std, *([self.origin] if self.origin else [])]
        digest.update(json.dumps(facts).encode())
        digest.update(str(self.model).encode())  # networks with the same weights may differ, as in their activations
        for name, tensor in sorted(self.model.state_dict().items()):
            if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.is_quantized:
                digest.update(f"{name} {describe_value(tensor)}".encode())  # such as an extra state
                continue
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @cached_property
    def cost(self) -> Cost:
        """Parameters and MACs for one image."""
        model = self.model.without_companion() if isinstance(self.model, GuardedNetwork) else self.model
        try:
            return measure_cost(model, self.image_shape)
        except Exception:  # its forward may need values, which tensors on the meta device do not have
            return measure_cost(model, self.image_shape, "cpu")

    def to(self, device: torch.device) -> Self:
        """Return the same teacher on a device. If it has to move, it is copied, because others may use this one."""
        if device_of(self.model) == device:
            return self
        return replace(self, model=copy_network(self.model).to(device))

    def lent(self) -> Self:
        """Return the same teacher with a copy of the model, for code of another package that might change it."""
        return replace(self, model=copy_network(self.model))

    def batch_norms(self) -> list[tuple[str, _BatchNorm]]:
        """Return the BatchNorm layers that keep running statistics, with their names, in the order of registration."""
        return [(name, module) for name, module in self.model.named_modules() if has_statistics(module)]

    def normalize(self, images: Tensor) -> Tensor:
        """Map uint8 (B, C, H, W) to the float input that the model was trained on."""
        return normalized(images, self.mean, self.std)

    def denormalize(self, x: Tensor) -> Tensor:
        """Map normalised images to uint8, rounding to the nearest grey level."""
        mean, std = (per_channel(values, x.device) for values in (self.mean, self.std))
        return ((x.float() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


def normalized(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Map uint8 (B, C, H, W) to float32 with the given statistics of each channel."""
    of_mean, of_std = (per_channel(values, images.device) for values in (mean, std))
    return (images.float() / 255 - of_mean) / of_std


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Return a statistic as (1, C, 1, 1), cached on its device, because a copy at every step would stall a GPU."""
    return torch.tensor(values, device=device).view(1, -1, 1, 1)


class TeacherSourceConfig(MemberConfig):
    """The common settings of all teacher sources.

    Attributes:
        kind: The name of the source in experiment files. Each source defines its own, as a field.
        class_names: Names given by the user. They replace those that `load` finds, and so do the other common settings.
    """

    if TYPE_CHECKING:
        kind: str

    class_names: ClassNamesSetting = Field(
        None,
        description="Names of the classes, in the order of the outputs: a list, or a file with one name per line or in "
        "JSON. By default the names that the source knows.",
    )
    crop: Crop | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="Real pictures of another size are resized to cover 1/crop of the input, and the centre is kept; 1 crops "
        "only what is not covered. By default as published, else 0.875.",
    )
    squash: bool | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="Resize height and width to exactly 1/crop of the input, whatever the aspect ratio. By default as "
        "published, else false.",
    )
    interpolation: Interpolation | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="Interpolation of resized pictures. By default as published, else bilinear.",
    )

    def resizing(self, found: Resizing) -> Resizing:
        """Return what happens to pictures of another size: what the user has given, and else what was found."""
        given = {"crop": self.crop, "squash": self.squash, "interpolation": self.interpolation}
        return found.model_copy(update={name: value for name, value in given.items() if value is not None})

    @abstractmethod
    def load(self, cache: Location | Path) -> Teacher:
        """Return the teacher; `freeze_teacher` makes one from a network.

        Args:
            cache: A folder for files that later commands can use again.

        Raises:
            TeacherError: it cannot be loaded.
        """


def load_teacher(config: TeacherSourceConfig, cache: Location | Path) -> Teacher:
    """Return the teacher of these settings, with the class names and the resizing that they give.

    Raises:
        TeacherError: it cannot be loaded, or the names do not fit. If a source of another package breaks the contract,
            the error names package, member and rule.
    """
    teacher = _load(config, cache)
    if (resizing := config.resizing(teacher.resizing)) != teacher.resizing:
        teacher = replace(teacher, resizing=resizing)
    if config.class_names is None:
        return teacher
    return replace(teacher, class_names=read_class_names(config.class_names, teacher.num_classes))


def _load(config: TeacherSourceConfig, cache: Location | Path) -> Teacher:
    if is_built_in(type(config)):
        return config.load(cache)
    try:
        teacher: object = config.load(cache)
    except DfnasError:
        raise
    except Exception as error:  # code of another package may raise anything
        raise TeacherError(
            f"The teacher source {describe(type(config))} fails in load(): {type(error).__name__}: {first_line(error)}"
        ) from error
    if isinstance(teacher, Teacher):
        if teacher.model in _frozen:
            return teacher
        return freeze_teacher(
            teacher.name,
            teacher.model,
            teacher.image_shape,
            teacher.mean,
            teacher.std,
            teacher.num_classes,
            teacher.origin,
            class_names=teacher.class_names,
            resizing=teacher.resizing,
        )
    raise TeacherError(
        f"The teacher source {describe(type(config))} breaks its contract: load() must return a Teacher, as freeze_teacher "
        f"makes one, not a {type(teacher).__name__}."
    )


def freeze_teacher(
    name: str,
    model: nn.Module,
    image_shape: ImageShape,
    mean: Sequence[float],
    std: Sequence[float],
    num_classes: int | None = None,
    origin: str = "",
    builder: str | None = None,
    class_names: Sequence[str] | None = None,
    resizing: Resizing | None = None,
) -> Teacher:
    """Freeze ``model``, try it on a few images, and return it as a `Teacher`.

    Args:
        name: The user's name for it.
        model: A classifier.
        image_shape: (C, H, W) of its input.
        mean: Mean of the pixels in [0, 1], one number per channel.
        std: Standard deviation of the same pixels, one number per channel.
        num_classes: The number of classes that the user expects. If it is None, the model is called to find it.
        origin: See `Teacher`; the code of the user's own modules is added to it.
        builder: The module that built the model, if it is not among the modules of its classes.
        class_names: Names of the classes, in the order of the logits.
        resizing: What happens to real pictures of another size; by default that of `Resizing`.

    Raises:
        TeacherError: the model does not take such an image, does not return logits, or returns another number of them;
            or the class names do not fit.
    """
    check_statistics(mean, std, image_shape)
    model = _in_evaluation_mode(name, unwrapped(model))
    check_numbers(name, model)
    facts = [
        origin,
        code_digest(model, builder),
        values_digest(model),
    ]  # before the first call, because a network may store its inputs
    replace_frozen_batch_norms(model)
    model, logits = try_network(name, model, image_shape, mean, std, num_classes)
    _check_movable(name, model, image_shape)
    found = logits.shape[1]
    if num_classes is not None and num_classes != found:
        raise TeacherError(
            f"teacher.num_classes is {num_classes}, but teacher {name} has {found} outputs. Remove the setting or set {found}."
        )
    _frozen.add(model)
    origin = " ".join(fact for fact in facts if fact)
    names = None if class_names is None else check_class_names(class_names, found, f"class_names of teacher {name}")
    statistics = tuple(map(float, mean)), tuple(map(float, std))
    return Teacher(name, model, found, image_shape, *statistics, origin, names, resizing or Resizing())


def _in_evaluation_mode(name: str, model: nn.Module) -> nn.Module:
    """Return the model on the CPU, in float32, frozen, and with every module in evaluation mode.

    This works even if the model's own ``train()`` does not.

    Raises:
        TeacherError: it is a TorchScript program, has weights without values, or raises an error itself.
    """
    programs = [path or "itself" for path, module in model.named_modules() if isinstance(module, ScriptModule)]
    if programs:
        raise TeacherError(
            f"Teacher {name} is a TorchScript program ({', '.join(programs[:3])}), whose layers cannot be observed. Give the "
            "network that it was made from, with its state_dict()."
        )
    empty = [key for key, value in (*model.named_parameters(), *model.named_buffers()) if value.is_meta]
    if empty:
        raise TeacherError(
            f"Teacher {name} has tensors on the meta device, which hold no values: {', '.join(empty[:3])}. Build it on the CPU."
        )
    try:
        model = evaluation_mode(model.cpu())
        for parameter in model.parameters():  # a TorchScript module has no requires_grad_()
            parameter.requires_grad_(False)
    except Exception as error:  # such as one of its own train()
        raise TeacherError(f"Teacher {name} cannot be put into evaluation mode: {first_line(error)}.") from error
    others = {t.dtype for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()} - {torch.float32}
    if others:
        logger.warning(
            "Teacher %s has weights in %s: it computes in float32.", name, ", ".join(sorted(map(str, others)))
        )
        model = model.float()
    return model


def _check_movable(name: str, model: nn.Module, image_shape: ImageShape) -> None:
    """Make sure that the model still works after a move to another device.

    Raises:
        TeacherError: it uses a tensor that does not move with it.
    """
    loose = [
        f"{path}.{attribute}".lstrip(".")
        for path, module in model.named_modules()
        for attribute, value in vars(module).items()
        if isinstance(value, Tensor)
    ]
    if not loose:
        return
    try:
        measure_cost(model, image_shape)
    except Exception as error:  # of any kind
        if "device" not in str(error):
            return  # another problem of the meta device, such as a forward that needs values
        raise TeacherError(
            f"Teacher {name} cannot be moved to another device: {', '.join(loose[:3])} is a tensor, but neither a parameter "
            "nor a buffer of its module. Register it there with register_buffer(name, tensor, persistent=False)."
        ) from error
