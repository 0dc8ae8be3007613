"""Image classifiers of Hugging Face transformers: from the Hub, its local cache, or a folder."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from pydantic import Field

from dfnas_ray.datasets.resizing import Interpolation, Resizing
from dfnas_ray.errors import TeacherError, first_line, shortened
from dfnas_ray.storage.location import Location, user_path
from dfnas_ray.teachers.base import ImageShape, Teacher, freeze_teacher
from dfnas_ray.teachers.published import PublishedTeacherConfig, missing_extra, quiet_hub

_UNREADABLE = (OSError, RuntimeError, ValueError, ImportError, KeyError, TypeError, AttributeError)
"""Errors that transformers raises for models that it cannot load."""


_Values: TypeAlias = tuple[float, ...]


class _Input(NamedTuple):
    """The input of a classifier, as far as its files describe it."""

    image_shape: ImageShape | None
    mean: _Values | None
    std: _Values | None
    resizing: Resizing


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
            resizing=found.resizing,
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
        settings = _effective(settings, str(getattr(config, "model_type", ""))) if settings else {}
        channels = int(getattr(config, "num_channels", 3) or 3)
        sides = _sides(settings, config)
        for setting, (does, instead) in _IMPOSSIBLE.items():
            if settings.get(setting):
                raise TeacherError(
                    f"{self._what} cannot be used as it is: its image processor {does} ({setting}: true), and a teacher here "
                    f"gets RGB images minus mean, divided by std. {instead}"
                )
        is_asked = settings and (self.mean is None or self.std is None)
        mean, std = self._statistics(settings, channels) if is_asked else (None, None)
        return _Input((channels, *sides) if sides else None, mean, std, _resizing(settings))

    def _statistics(self, settings: Mapping[str, Any], channels: int) -> tuple[_Values | None, _Values | None]:
        """Return mean and std for pixels x in [0, 1], with all that the image processor does to pixels 255 x.

        It computes (255 x factor - offset - mean) / std, and EfficientNet's divides by std once more. With
        scale = 255 factor, this is (x - (mean + offset) / scale) / (std / scale).
        """
        scale, offset = 255.0, 0.0
        if settings.get("do_rescale", True):
            factor = settings.get("rescale_factor", 1 / 255)
            if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor < math.inf:
                raise TeacherError(
                    f"{self._what} cannot be used: its image processor has the rescale_factor {shortened(repr(factor), 40)}, "
                    "which must be a number above 0, such as 0.00392156862745098 (1/255). Set teacher.mean and teacher.std."
                )
            scale, offset = 255.0 * factor, float(bool(settings.get("rescale_offset")))
        if math.isclose(scale, 1.0, rel_tol=1e-6):  # files write 1/255 with some digits
            scale = 1.0
        own_std, mean = _per_channel(settings.get("image_std"), channels), _per_channel(0.0, channels)
        std = _per_channel(1.0, channels)
        if settings.get("do_normalize", True):
            mean, std = _per_channel(settings.get("image_mean"), channels), own_std
        if settings.get("include_top") and std is not None:
            std = None if own_std is None else tuple(a * b for a, b in zip(std, own_std, strict=False))
        return (
            None if mean is None else tuple((value + offset) / scale for value in mean),
            None if std is None else tuple(value / scale for value in std),
        )


_NO_MATTER = ("_name_or_path", "architectures", "dtype", "id2label", "label2id", "torch_dtype", "transformers_version")
"""Entries of a config that do not change what the model computes."""


_IMPOSSIBLE = {
    "do_flip_channel_order": (
        "turns RGB into BGR",
        "Load it with teacher.kind: checkpoint and a builder whose network begins with x.flip(1).",
    ),
    "do_color_quantize": ("replaces colours by numbers of clusters", "Choose a model that takes pixels."),
    "do_grayscale": (
        "makes images grey",
        "Load it with teacher.kind: checkpoint and a builder whose network begins with the same step.",
    ),
}
"""What an image processor may do to colours that no mean and std can express, and what to do instead."""

_OF_EFFICIENTNET: Mapping[str, Any] = {"include_top": True, "rescale_offset": False}
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "efficientnet": _OF_EFFICIENTNET,
    "mobilevit": {"do_flip_channel_order": True, "do_normalize": False},
    "imagegpt": {"do_color_quantize": True},
}
"""What the image processors of some models do to colours if their file does not say it."""


def _effective(settings: Mapping[str, Any], model_type: str) -> Mapping[str, Any]:
    """Return the settings of an image processor with its class's defaults, and without those that its class ignores."""
    kind = str(settings.get("image_processor_type") or settings.get("feature_extractor_type") or model_type).lower()
    own = next((defaults for name, defaults in _DEFAULTS.items() if kind.startswith(name)), {})
    return {**own, **{name: settings[name] for name in settings if name in own or name not in _OF_EFFICIENTNET}}


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


_OF_PILLOW: Mapping[int, Interpolation] = {
    0: "nearest",
    1: "lanczos",
    2: "bilinear",
    3: "bicubic",
    4: "box",
    5: "hamming",
}
"""Pillow's numbers of interpolations, which files of image processors hold."""

_LARGE = 384  # ConvNeXt's processor squashes pictures for inputs of this size, and crops those for smaller ones


def _resizing(settings: Mapping[str, Any]) -> Resizing:
    """Return what the image processor does to pictures, as far as its file says it."""
    size, crop = settings.get("size"), settings.get("crop_size") if settings.get("do_center_crop") else None
    share, found = settings.get("crop_pct"), dict[str, Any]()
    shortest = size.get("shortest_edge") if isinstance(size, Mapping) else size
    inner = crop.get("height") if isinstance(crop, Mapping) else crop
    if not settings.get("do_resize", True):
        return Resizing()
    if isinstance(share, int | float) and 0 < share <= 1:
        large = crop is None and isinstance(shortest, int) and shortest >= _LARGE
        found = {"crop": 1.0, "squash": True} if large else {"crop": float(share)}
    elif isinstance(size, Mapping) and isinstance(outer := size.get("height"), int):
        found = {"squash": True, "crop": inner / outer if isinstance(inner, int) else 1.0}
    elif isinstance(shortest, int) and isinstance(inner, int):
        found = {"crop": inner / shortest}
    elif isinstance(size, Mapping) and isinstance(shortest, int):
        found = {"crop": 1.0}
    resample = settings.get("resample")
    if isinstance(resample, int) and resample in _OF_PILLOW:
        found["interpolation"] = _OF_PILLOW[resample]
    crop_of_all = found.get("crop", Resizing().crop)
    return Resizing(**found) if 0 < crop_of_all <= 1 else Resizing()


def _per_channel(values: Any, channels: int) -> _Values | None:
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
