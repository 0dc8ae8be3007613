"""Classifiers of timm (PyTorch Image Models), with their published weights or a file."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field
from torch import nn

from dfnas_ray.datasets.resizing import Interpolation, Resizing
from dfnas_ray.errors import TeacherError, first_line, shortened
from dfnas_ray.storage.location import Location, user_path
from dfnas_ray.teachers.base import Classes, Teacher, freeze_teacher
from dfnas_ray.teachers.checkpoint import load_weights
from dfnas_ray.teachers.published import PublishedTeacherConfig, hub_file, missing_extra
from dfnas_ray.teachers.weight_files import read_state_dict

_FILES = ("model.safetensors", "pytorch_model.bin")


class TimmTeacherConfig(PublishedTeacherConfig):
    """A classifier of timm; its weights are downloaded once, or read from a file. Needs the extra ``timm``."""

    kind: Literal["timm"]
    name: str = Field(description="Model name, with or without a tag, e.g. resnet18 or resnet18.a1_in1k.")
    checkpoint: Path | None = Field(None, description="File with weights of this model, instead of the download.")
    num_classes: Classes | None = Field(
        None, description="Number of classes of a checkpoint that was trained for other classes."
    )
    arguments: dict[str, Any] = Field(
        default_factory=dict, description="Further arguments of timm.create_model, such as in_chans."
    )

    def load(self, cache: Location | Path) -> Teacher:
        """Build the model and load the weights; size, mean, std and class names come from timm.

        Raises:
            TeacherError: timm is not installed, has no such model, or its weights cannot be loaded (the message says
                how to give a file).
        """
        try:
            import timm
        except ImportError as error:
            raise missing_extra("timm", "timm") from error
        if not timm.is_model(self.name):
            near = difflib.get_close_matches(self.name, timm.list_models(), 3)
            hint = f"Did you mean {' or '.join(near)}? " if near else ""
            raise TeacherError(
                f"timm {timm.__version__} has no model called {shortened(self.name, 60)}. {hint}`timm.list_models()` lists all."
            )
        model = self._published() if self.checkpoint is None else self._of_file(user_path(self.checkpoint))
        published = model.pretrained_cfg
        name = f"timm:{self.name}"
        channels, *sides = published["input_size"]
        shape = (self.arguments.get("in_chans", channels), *sides)
        return freeze_teacher(
            name,
            model,
            self.image_shape or shape,
            self.mean or published["mean"],
            self.std or published["std"],
            origin=f"{name} {json.dumps(self.arguments, sort_keys=True, default=str)}" if self.arguments else name,
            class_names=None if self.num_classes else _class_names(model),
            resizing=_resizing(published),
        )

    def _published(self) -> Any:
        """Return the network with its published weights."""
        model = self._built()
        published, repository = model.pretrained_cfg, model.pretrained_cfg.get("hf_hub_id")
        classes = self.arguments.get("num_classes") if self.num_classes is None else self.num_classes
        if classes not in (None, published["num_classes"]):  # timm would give it a random last layer
            raise TeacherError(
                f"teacher.num_classes ({classes}): the published weights of timm:{self.name} have "
                f"{published['num_classes']} classes. Remove it, or set teacher.checkpoint to your own weights."
            )
        overlay = {}
        try:
            if repository and not published.get("hf_hub_filename"):
                overlay["file"] = str(hub_file(repository, _FILES))
            return self._built(pretrained=True, pretrained_cfg_overlay=overlay)
        except (OSError, RuntimeError, ValueError, HTTPException) as error:
            where = f"https://huggingface.co/{repository}" if repository else published.get("url") or "its author"
            raise TeacherError(
                f"The weights of timm:{self.name} cannot be loaded ({first_line(error)}). Without a network: fetch "
                f"model.safetensors of {where} on another machine and set teacher.checkpoint to the file."
            ) from error

    def _of_file(self, path: Path) -> Any:
        """Return the network with the weights of a file. No code of the file runs."""
        model = self._built()
        load_weights(
            model,
            read_state_dict(path),
            str(path),
            network=f"the network of teacher.name ({self.name})",
            remedy=f"Set teacher.checkpoint to weights of {self.name}, or teacher.num_classes and teacher.arguments to what "
            "they were trained with.",
        )
        return model

    def _built(self, **arguments: Any) -> Any:
        """Return the network that timm builds. Its type is Any, because its attributes have no types."""
        import timm

        if self.num_classes is not None:
            arguments["num_classes"] = self.num_classes
        try:
            return timm.create_model(self.name, **{**self.arguments, **arguments})
        except (TypeError, RuntimeError, ValueError, AssertionError) as error:
            if arguments.get("pretrained"):
                raise
            raise TeacherError(
                f"timm cannot make {shortened(self.name, 60)} with teacher.arguments {self.arguments}: {first_line(error)}"
            ) from error


def _resizing(published: Mapping[str, Any]) -> Resizing:
    """Return what timm does to pictures for an evaluation."""
    crop, interpolation = published.get("crop_pct"), published.get("interpolation")
    found: dict[str, Any] = {"squash": published.get("crop_mode") == "squash"}
    if isinstance(crop, int | float) and crop > 0:
        found["crop"] = min(1.0, float(crop))
    if interpolation in get_args(Interpolation):
        found["interpolation"] = interpolation
    return Resizing(**found)


def _class_names(model: nn.Module) -> list[str] | None:
    """Return the first ImageNet name of each class; None if the network is not a classifier of ImageNet."""
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset(model)
    if subset is None:
        return None
    names = ImageNetInfo(subset)
    return [names.index_to_description(label).split(",")[0] for label in range(names.num_classes())]
