"""A teacher from a checkpoint file and the function that builds its network."""

from __future__ import annotations

import codecs
import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from dfnas_ray.config.code import import_code
from dfnas_ray.errors import TeacherError, first_line
from dfnas_ray.storage.location import Location
from dfnas_ray.teachers.base import Teacher, TeacherSourceConfig, freeze_teacher

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "params")
_NEITHER = "The checkpoint {} is neither a torch file nor .safetensors. Set teacher.checkpoint to the weights."
_FIRST_LISTED = 4
_HEAD_BYTES = 512  # enough to tell a text file from weights


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read weights from a ``.safetensors`` file or a torch checkpoint, without running any code from it.

    A checkpoint that wraps its weights ({"state_dict": ...}) is unwrapped, and the ``module.`` that data-parallel
    training puts before each name is removed.

    Raises:
        TeacherError: the file is missing, is not a checkpoint, or would have to run code to load.
    """
    if not path.is_file():
        raise TeacherError(f"The checkpoint {path} does not exist. Set teacher.checkpoint to the file.")
    _refuse_text(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not _begins_as_torch_file(path):
            raise TeacherError(_NEITHER.format(path)) from error
        asked = re.search(r"GLOBAL (\S+)", str(error))  # torch's own advice is to load it unsafely: it is not passed on
        raise TeacherError(
            f"The checkpoint {path} cannot be loaded safely: it holds more than tensors"
            f"{f' ({asked[1]})' if asked else ''}, and loading it would run code from the file. Save its state_dict() alone "
            "(torch.save(model.state_dict(), ...) or safetensors) where you trust it."
        ) from error
    except Exception as error:  # torch and safetensors raise many kinds for a file that is damaged or of another format
        if path.suffix != ".safetensors" and path.stat().st_size and not _begins_as_torch_file(path):
            raise TeacherError(_NEITHER.format(path)) from error
        raise TeacherError(f"The checkpoint {path} cannot be read: {first_line(error)}") from error
    while isinstance(state, Mapping) and not _is_state_dict(state):
        inner = next((state[key] for key in _WRAPPERS if isinstance(state.get(key), Mapping)), None)
        if inner is None:
            raise TeacherError(
                f"The checkpoint {path} holds no weights under {', '.join(_WRAPPERS)}; its keys are {list(state)[:10]}."
            )
        state = inner
    if not isinstance(state, Mapping):
        raise TeacherError(f"The checkpoint {path} holds a {type(state).__name__}, not a state dict.")
    prefix = "module."
    if all(name.startswith(prefix) for name in state):
        return {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return dict(state)


def load_weights(
    model: nn.Module,
    state: Mapping[str, Tensor],
    source: str,
    network: str = "the network",
    remedy: str = "Give the weights of this very network.",
) -> None:
    """Load ``state`` into ``model``; every name and shape must fit.

    Args:
        model: Takes the weights.
        state: The weights by name.
        source: Where they come from.
        network: What the user calls ``model``: the setting that chose it, and its value.
        remedy: What the user can change.

    Raises:
        TeacherError: lists the first names that are missing, unexpected or of another shape, and the last: often the
            classifier's.
    """
    own = model.state_dict()
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in own]
    misshapen = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    problems = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
    if any(problems.values()):
        listed = "; ".join(
            f"{len(names)} {kind}: {', '.join(_first_and_last(names))}" for kind, names in problems.items() if names
        )
        raise TeacherError(f"The checkpoint {source} does not fit {network}: {listed}. {remedy}")
    model.load_state_dict(dict(state), strict=False)  # only num_batches_tracked may be absent: older files lack it


def build_model(builder: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Call ``package.module:function`` with keyword arguments; the working directory can be imported from.

    Raises:
        TeacherError: the function cannot be imported, does not take the arguments, or returns no module.
    """
    try:
        function = import_code(builder)
    except Exception as error:  # importing runs the user's code
        raise TeacherError(
            f"teacher.builder {builder} cannot be imported: {type(error).__name__}: {first_line(error)}. "
            "It must be package.module:function, installed or in "
            "the working directory."
        ) from error
    try:
        model = function(**arguments)
    except Exception as error:  # the user's code may raise anything; the message must still name the setting
        raise TeacherError(
            f"teacher.builder {builder} failed with teacher.arguments {dict(arguments)}: {type(error).__name__}: "
            f"{first_line(error)}"
        ) from error
    if not isinstance(model, nn.Module):
        raise TeacherError(f"teacher.builder {builder} returned a {type(model).__name__}, not a torch.nn.Module.")
    return model


def _first_and_last(names: list[str]) -> list[str]:
    if len(names) <= _FIRST_LISTED + 1:
        return names
    return [*names[:_FIRST_LISTED], "...", names[-1]]


def _refuse_text(path: Path) -> None:
    """Tell a web page or a pointer, saved under the checkpoint's name, from a checkpoint that would run code."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise TeacherError(f"The checkpoint {path} cannot be read: {first_line(error)}") from error
    if head.startswith(b"version https://git-lfs"):
        raise TeacherError(
            f"The checkpoint {path} is a Git LFS pointer, not a checkpoint: the weights themselves were not fetched. "
            "Run `git lfs pull` in its repository, or download the file again."
        )
    # A safetensors file may begin with "<" as well: there it is a byte of a length, and zeros follow.
    if head.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"<") and b"\0" not in head:
        raise TeacherError(
            f"The checkpoint {path} is a web page (HTML), not a checkpoint. Download it again, from the address of the "
            "file itself, or set teacher.checkpoint to another file."
        )


def _begins_as_torch_file(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4).startswith(
            (b"PK\x03\x04", b"\x80")
        )  # a zip archive, or the bare pickle of before torch 1.6


def _is_state_dict(state: Mapping[Any, Any]) -> bool:
    return bool(state) and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items())


class CheckpointTeacherConfig(TeacherSourceConfig):
    """A checkpoint file and the function that builds the network it belongs to."""

    kind: Literal["checkpoint"]
    checkpoint: Path | None = Field(None, description="Weights: .safetensors, or a torch file with a state dict.")
    builder: str = Field(
        pattern=r"^\w+(\.\w+)*:\w+(\.\w+)*$",
        description="package.module:function that returns the untrained network. This runs your code.",
    )
    arguments: dict[str, Any] = Field(default_factory=dict, description="Keyword arguments of the builder.")
    image_shape: tuple[PositiveInt, PositiveInt, PositiveInt] = Field(
        description="(channels, height, width) of one input."
    )
    num_classes: int | None = Field(None, gt=1, description="Checked against the network's outputs when given.")
    mean: tuple[float, ...] = Field(description="Mean of the pixels in [0, 1] that the teacher was trained with.")
    std: tuple[float, ...] = Field(description="Standard deviation likewise, one number per channel.")

    def imported_code(self) -> dict[str, str]:
        """Return the builder."""
        return {"builder": self.builder}

    def file(self) -> Path:
        """Return where the weights are.

        Raises:
            TeacherError: ``checkpoint`` is not set.
        """
        if self.checkpoint is None:
            raise TeacherError("teacher.checkpoint is not set. Give the file: --set teacher.checkpoint=PATH.")
        return self.checkpoint.expanduser()

    def load(self, cache: Location | Path) -> Teacher:
        """Build the network and load the weights into it; ``cache`` is not needed."""
        path = self.file()
        state = read_state_dict(path)
        model = build_model(self.builder, self.arguments)
        load_weights(
            model,
            state,
            str(path),
            network=f"the network that teacher.builder ({self.builder}) makes",
            remedy=f"Check teacher.builder, teacher.arguments ({self.arguments}) and teacher.checkpoint.",
        )
        origin = json.dumps([self.builder, self.arguments], sort_keys=True, default=str)
        return freeze_teacher(path.name, model, self.image_shape, self.mean, self.std, self.num_classes, origin)
