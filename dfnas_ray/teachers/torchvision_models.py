"""Published classifiers of torchvision, with their published weights."""

from __future__ import annotations

import re
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field
from torch import nn

from dfnas_ray.datasets.resizing import Resizing
from dfnas_ray.errors import TeacherError
from dfnas_ray.storage.location import Location, user_path
from dfnas_ray.teachers.base import Classes, Teacher, freeze_teacher
from dfnas_ray.teachers.checkpoint import load_weights
from dfnas_ray.teachers.published import PublishedTeacherConfig
from dfnas_ray.teachers.weight_files import read_state_dict

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum


class TorchvisionTeacherConfig(PublishedTeacherConfig):
    """A classifier of torchvision.models; its weights are downloaded once, or read from a file."""

    kind: Literal["torchvision"]
    name: str = Field(description="Model name, e.g. resnet50.")
    weights: str = Field("DEFAULT", description="Member of the model's weights enum, e.g. IMAGENET1K_V2.")
    checkpoint: Path | None = Field(None, description="File with weights of this model, instead of the download.")
    num_classes: Classes | None = Field(
        None, description="Number of classes of a checkpoint that was trained for other classes."
    )

    def load(self, cache: Location | Path) -> Teacher:
        """Build the model and load the weights; size, mean, std and class names are those of the published weights.

        Raises:
            TeacherError: there is no such model or no such weights, they do not fit, or they cannot be downloaded (the
                message says where to get the file).
        """
        import torchvision.models
        from torchvision.models import get_model_weights, list_models

        if self.name not in list_models(module=torchvision.models):
            raise TeacherError(
                f"torchvision has no classifier called {self.name}. Try resnet50, or `torchvision.models.list_models()`."
            )
        enum = get_model_weights(self.name)
        if self.weights not in enum.__members__:
            raise TeacherError(
                f"teacher.weights {self.weights} is not a member of {enum.__name__}: {', '.join(enum.__members__)}."
            )
        weights = enum[self.weights]
        published = len(weights.meta["categories"])
        if self.checkpoint is None and self.num_classes not in (None, published):
            raise TeacherError(
                f"teacher.num_classes ({self.num_classes}): the published weights of torchvision:{self.name} have {published} "
                "classes. Remove it, or set teacher.checkpoint to your own weights."
            )
        model = build_network(self.name, weights, self.num_classes, self.image_shape and self.image_shape[1])
        if self.checkpoint is not None:
            path = user_path(self.checkpoint)
            state, source = read_state_dict(path), str(path)
        else:
            try:
                state, source = weights.get_state_dict(progress=False, check_hash=True), weights.url
            except (OSError, RuntimeError, HTTPException) as error:
                raise TeacherError(
                    f"The weights of torchvision:{self.name} cannot be downloaded ({error}). Without a network: fetch "
                    f"{weights.url} on another machine and set teacher.checkpoint to the file."
                ) from error
        load_weights(
            model,
            {_present_name(name): tensor for name, tensor in state.items()},
            source,
            network=f"the network of teacher.name ({self.name})",
            remedy=f"Set teacher.checkpoint to weights of {self.name}, teacher.name to the network that they belong to, or "
            "teacher.num_classes to the number of classes that they were trained for.",
        )
        preset = weights.transforms()
        (size,) = preset.crop_size
        name = f"torchvision:{self.name}"
        return freeze_teacher(
            name,
            model,
            self.image_shape or (len(preset.mean), size, size),
            self.mean or preset.mean,
            self.std or preset.std,
            origin=name,
            class_names=None if self.num_classes else weights.meta["categories"],
            resizing=resizing_of(preset),
        )


def resizing_of(preset: Any) -> Resizing:
    """Return what a preset does to pictures; its crop may not be larger than the resized picture."""
    (crop,), (side,) = preset.crop_size, preset.resize_size
    return Resizing(crop=min(1.0, crop / side), interpolation=preset.interpolation.value)


def build_network(
    name: str, weights: WeightsEnum, num_classes: int | None = None, image_size: int | None = None
) -> nn.Module:
    """Return the untrained network for published weights. Some weights need more than the right number of classes.

    Args:
        name: The name of the network.
        weights: The published weights.
        num_classes: The number of classes of other weights, if it is not the published one.
        image_size: The side of an image for other weights, likewise.
    """
    from torchvision.models import get_model

    arguments: dict[str, Any] = {"num_classes": num_classes or len(weights.meta["categories"])}
    if name in ("googlenet", "inception_v3"):
        arguments |= {"transform_input": True, "init_weights": False}  # trained with another input normalisation
    elif name.startswith("vit_"):
        arguments["image_size"] = image_size or weights.meta["min_size"][0]  # 224, 384, 512 or 518
    return get_model(name, weights=None, **arguments)


def _present_name(name: str) -> str:
    """Return the present name of a weight. DenseNet's files have old names of layers."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", name)
