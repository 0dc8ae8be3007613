"""Image classifiers of Hugging Face transformers: from the Hub, its local cache, or a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field

from dfnas_ray.errors import TeacherError, first_line, shortened
from dfnas_ray.storage.location import Location, user_path
from dfnas_ray.teachers.base import ImageShape, Teacher, freeze_teacher
from dfnas_ray.teachers.published import PublishedTeacherConfig, missing_extra, quiet_hub

_UNREADABLE = (OSError, RuntimeError, ValueError, ImportError, KeyError, TypeError, AttributeError)
"""Errors that transformers raises for models that it cannot load."""


class _Input(NamedTuple):
    """The input of a classifier, as far as its files describe it."""

    image_shape: ImageShape | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None


class HuggingFaceTeacherConfig(PublishedTeacherConfig):
    """An image classifier of Hugging Face transformers. Needs the extra ``huggingface``."""

    kind: Literal["huggingface"]
    name: str = Field(description="Model ID, e.g. microsoft/resnet-50, or a folder that save_pretrained() wrote.")
    revision: str | None = Field(None, description="Branch, tag or commit on the Hub.")
    checkpoint: Path | None = Field(None, description="Folder with the model's files, instead of the download.")

    def load(self, cache: Location | Path) -> Teacher:
        """Load the model; size, mean, std and class names come from its files. No code of the repository runs.

        Raises:
            TeacherError: transformers is not installed, the files are not an image classifier, or they cannot be loaded
                (the message says how to give a folder).
        """
        try:
            from transformers import AutoModelForImageClassification
        except ImportError as error:
            raise missing_extra("huggingface", "transformers") from error
        folder = self._folder()
        if folder is not None:
            model, info = self._loaded(AutoModelForImageClassification, folder, local_files_only=True)
        else:
            try:  # the cache first: without a network, each file would cost a timeout
                model, info = _from_pretrained(AutoModelForImageClassification, self.name, self.revision, True)
            except _UNREADABLE:
                model, info = self._loaded(AutoModelForImageClassification, self.name, local_files_only=False)
        lacking = [*info["missing_keys"], *(str(entry[0]) for entry in info["mismatched_keys"])]
        if lacking:
            raise TeacherError(
                f"{self._what} has no weights for {len(lacking)} parts of an image classifier, such as {sorted(lacking)[-1]}: "
                "they would be random. Give a model that was trained to classify images."
            )
        found = self._input(model.config, folder or self.name)
        config = {key: value for key, value in model.config.to_diff_dict().items() if key not in _NO_MATTER}
        origin = f"huggingface {type(model).__name__} {json.dumps(config, sort_keys=True, default=str)}"
        return freeze_teacher(
            f"huggingface:{Path(self.name).name if folder else self.name}",
            model,
            _given("image_shape", self.image_shape, found.image_shape, self._what),
            _given("mean", self.mean, found.mean, self._what),
            _given("std", self.std, found.std, self._what),
            num_classes=model.config.num_labels,
            origin=origin,
            class_names=_class_names(model.config.id2label),
        )

    @property
    def _what(self) -> str:
        return f"huggingface:{shortened(self.name, 100)}"

    def _folder(self) -> str | None:
        """Return the folder of the files on this machine, if the user has given one."""
        if self.checkpoint is not None:
            folder = user_path(self.checkpoint)
            if not (folder / "config.json").is_file():
                raise TeacherError(
                    f"teacher.checkpoint {folder} must be a folder with config.json and model.safetensors, as save_pretrained() "
                    "writes it."
                )
            return str(folder)
        folder = user_path(Path(self.name))
        return str(folder) if (folder / "config.json").is_file() else None

    def _loaded(self, factory: Any, source: str, local_files_only: bool) -> tuple[Any, Mapping[str, Any]]:
        try:
            return _from_pretrained(factory, source, self.revision, local_files_only)
        except _UNREADABLE as error:
            hint = (
                "It must be an image classifier that transformers knows without code of the repository."
                if local_files_only
                else f"Without a network: download its files on another machine (`hf download {self.name} --local-dir FOLDER`), "
                "and set teacher.checkpoint to the folder."
            )
            raise TeacherError(f"{self._what} cannot be loaded ({first_line(error)}). {hint}") from error

    def _input(self, config: Any, source: str) -> _Input:
        """Return the input as the image processor's file describes it, or else as the model's config does."""
        from transformers.image_processing_base import ImageProcessingMixin

        settings: Mapping[str, Any] = {}
        try:
            with quiet_hub():
                settings, _ = ImageProcessingMixin.get_image_processor_dict(
                    source, revision=self.revision, local_files_only=True
                )
        except _UNREADABLE:
            pass  # then the user has to give the input
        channels = int(getattr(config, "num_channels", 3) or 3)
        sides = _sides(settings, config)
        if settings.get("do_normalize", bool(settings)):
            mean, std = settings.get("image_mean"), settings.get("image_std")
        else:
            mean, std = ([0.0] * channels, [1.0] * channels) if settings else (None, None)
        return _Input((channels, *sides) if sides else None, _per_channel(mean, channels), _per_channel(std, channels))


_NO_MATTER = ("_name_or_path", "architectures", "dtype", "id2label", "label2id", "torch_dtype", "transformers_version")
"""Entries of a config that do not change what the model computes."""


def _from_pretrained(factory: Any, source: str, revision: str | None, local: bool) -> tuple[Any, Mapping[str, Any]]:
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()  # missing weights are reported as an error of our own
    logging.disable_progress_bar()
    try:
        with quiet_hub():
            return factory.from_pretrained(
                source,
                revision=revision,
                local_files_only=local,
                output_loading_info=True,
                trust_remote_code=False,
                dtype=torch.float32,
            )
    finally:
        logging.set_verbosity(before)
        logging.enable_progress_bar()


def _sides(settings: Mapping[str, Any], config: Any) -> tuple[int, int] | None:
    """Return height and width: those of the centre crop, or else of the resized image, or else the model's own."""
    for size in (settings.get("crop_size") if settings.get("do_center_crop") else None, settings.get("size")):
        if isinstance(size, int):
            return size, size
        if isinstance(size, Mapping):
            if "height" in size and "width" in size:
                return int(size["height"]), int(size["width"])
            if "shortest_edge" in size:
                return int(size["shortest_edge"]), int(size["shortest_edge"])
    own = getattr(config, "image_size", None)
    if isinstance(own, int):
        return own, own
    return (int(own[0]), int(own[1])) if isinstance(own, list | tuple) and len(own) == 2 else None


def _per_channel(values: Any, channels: int) -> tuple[float, ...] | None:
    if values is None:
        return None
    listed = [values] if isinstance(values, int | float) else list(values)
    return tuple(map(float, listed * channels if len(listed) == 1 else listed))


def _given(setting: str, own: Any, found: Any, what: str) -> Any:
    if own is None and found is None:
        raise TeacherError(f"{what} does not state its {setting}. Set teacher.{setting} as in its training.")
    return found if own is None else own


def _class_names(id2label: Mapping[int, str]) -> list[str] | None:
    """Return the names in the order of the outputs; None where they are placeholders."""
    names = [str(id2label.get(label, "")) for label in range(len(id2label))]
    if all(name == f"LABEL_{label}" for label, name in enumerate(names)) or not all(names):
        return None
    return [name.split(",")[0] for name in names] if all(name.split(",")[0].strip() for name in names) else names
