"""A teacher from a checkpoint file and the function that builds its network."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from dfnas_ray.config.code import as_a_guest, import_code
from dfnas_ray.errors import TeacherError, first_line
from dfnas_ray.ops.networks import copy_network, unwrapped
from dfnas_ray.storage.location import Location, user_path
from dfnas_ray.teachers.base import Classes, ImageShape, Teacher, TeacherSourceConfig, freeze_teacher
from dfnas_ray.teachers.weight_files import USUAL, StateDict, read_state_dict

logger = logging.getLogger(__name__)

_FIRST_LISTED = 4
_WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Parts of weight names that come from data parallelism, torch.compile, sharding and activation checkpointing."""
_OPTIONAL = "num_batches_tracked"
"""Older files lack this buffer, and a teacher's outputs do not depend on it."""


def load_weights(
    model: nn.Module,
    state: Mapping[str, Any],
    source: str,
    network: str = "the network",
    remedy: str = "Give the weights of this very network.",
) -> None:
    """Load ``state`` into ``model``. All that its own ``load_state_dict`` accepts is accepted.

    A prefix that a wrapper has put before all names (``module.``, ``_orig_mod.``, Lightning's ``model.``) is removed if
    the names then fit. A warning says how many weights without this prefix are left out.

    Args:
        model: The network that gets the weights.
        state: The weights by name.
        source: The file or address that the weights come from.
        network: How errors describe ``model``: by the setting that chose it, and its value.
        remedy: What the user can change.

    Raises:
        TeacherError: names are missing, unexpected or of another shape. The message lists the first ones and the last
            one, which is often the classifier's. Or weights are of a kind that a network cannot compute with.
    """
    own = model.state_dict(keep_vars=True)
    chosen = _without_wrappers(own, state, source)
    _check_kinds(chosen, own, source)
    misshapen = [
        f"{name} {tuple(chosen[name].shape)} instead of {tuple(value.shape)}"
        for name, value in own.items()
        if not is_lazy(value) and isinstance(value, Tensor) and name in chosen and chosen[name].shape != value.shape
    ]
    missing, unexpected = _misfits(model, chosen)
    problems = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
    if any(problems.values()):
        listed = "; ".join(
            f"{len(names)} {kind}: {', '.join(_first_and_last(names))}" for kind, names in problems.items() if names
        )
        raise TeacherError(f"The checkpoint {source} does not fit {network}: {listed}. {remedy}")
    try:
        without_values = any(isinstance(value, Tensor) and value.is_meta for value in own.values())
        model.load_state_dict(chosen, strict=False, assign=without_values)
    except Exception as error:  # a module may have its own way of loading
        raise TeacherError(f"The checkpoint {source} does not fit {network}: {first_line(error)}. {remedy}") from error


def _misfits(model: nn.Module, state: StateDict) -> tuple[list[str], list[str]]:
    """Return the names that are missing, and those that are unexpected, by the network's own rules.

    A copy on the meta device is used, because a load that fails has already changed other weights.
    """
    try:
        trial = copy_network(model).to("meta")
        meta = {name: value.to("meta") if isinstance(value, Tensor) else value for name, value in state.items()}
        result = trial.load_state_dict(meta, strict=False, assign=True)
        missing, unexpected = list(result.missing_keys), list(result.unexpected_keys)
    except Exception:  # the network cannot be copied, or its shapes differ: compare the names
        own = model.state_dict()
        missing, unexpected = [n for n in own if n not in state], [n for n in state if n not in own]
    tied: dict[int, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        tied.setdefault(id(parameter), set()).add(name)
    filled = {
        name for names in tied.values() if names & state.keys() for name in names
    }  # all names of each shared parameter that the file has under one of them
    return [name for name in missing if not name.endswith(_OPTIONAL) and name not in filled], unexpected


def _without_wrappers(own: Mapping[str, Any], state: Mapping[str, Any], source: str) -> StateDict:
    """Return the weights under the network's own names, without the parts that wrappers have put into them."""
    names = [name for name in own if not name.endswith((_OPTIONAL, "_extra_state"))]
    chosen = _without_prefix(names, state, source)
    if all(name in chosen for name in names):
        return chosen
    known = {_plain(name): name for name in own}
    plain = _without_prefix([_plain(name) for name in names], {_plain(name): state[name] for name in state}, source)
    if len(known) < len(own) or not all(_plain(name) in plain for name in names):
        return chosen
    return {known.get(name, name): value for name, value in plain.items()}


def _plain(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _without_prefix(own: Sequence[str], state: Mapping[str, Any], source: str) -> StateDict:
    """Return one set of weights without the prefix of its names.

    Raises:
        TeacherError: there are several different sets, and none is the usual one.
    """
    if not own or all(name in state for name in own):
        return dict(state)
    ends = (name.removesuffix(own[0]) for name in state if name.endswith(f".{own[0]}"))
    prefixes = [prefix for prefix in dict.fromkeys(ends) if all(prefix + name in state for name in own)]
    if not prefixes:
        first = own[0].partition(".")[0] + "."  # the network itself may be wrapped
        if all(name.startswith(first) and name.removeprefix(first) in state for name in own):
            return {first + name: value for name, value in state.items()}
        return dict(state)
    plain = [prefix for prefix in prefixes if not re.search(r"ema|averag|swa|shadow", prefix, re.IGNORECASE)]
    usual = [prefix for prefix in plain if prefix.partition(".")[0] in USUAL]
    candidates = usual or plain or prefixes
    prefix = candidates[0]
    if any(not _same(state[prefix + name], state[other + name]) for other in candidates[1:] for name in own):
        raise TeacherError(
            f"The checkpoint {source} holds several sets of weights that fit (names begin with {', '.join(candidates[:6])}). "
            "Choose one with teacher.weights."
        )
    left_out = [name for name in state if not name.startswith(prefix)]
    if left_out:
        hint = " (teacher.weights)" if len(prefixes) > 1 else ""
        logger.warning(
            "Of %s, the weights whose names begin with %s are taken; %d others are left out%s, such as %s.",
            source, prefix, len(left_out), hint, left_out[0],
        )  # fmt: skip
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _same(first: Any, second: Any) -> bool:
    return isinstance(first, Tensor) and isinstance(second, Tensor) and torch.equal(first, second)


def _check_kinds(state: StateDict, own: Mapping[str, Any], source: str) -> None:
    for name, value in state.items():
        if not isinstance(value, Tensor):
            continue
        if value.is_meta:
            raise TeacherError(f"The checkpoint {source} has weights without values (on the meta device): {name}.")
        if value.is_quantized or value.layout != torch.strided or value.is_nested:
            kind = "quantized" if value.is_quantized else "nested" if value.is_nested else f"of layout {value.layout}"
            raise TeacherError(
                f"The checkpoint {source} has weights that are {kind}: {name}. Save them as plain tensors."
            )
        if value.is_complex():
            raise TeacherError(
                f"The checkpoint {source} has complex weights: {name}. Networks with complex weights are not supported."
            )
        needed = own.get(name)
        if (
            isinstance(needed, Tensor)
            and needed.is_floating_point()
            and not (value.is_floating_point() or value.is_complex())
        ):
            raise TeacherError(
                f"The checkpoint {source} has {str(value.dtype).removeprefix('torch.')} where the network computes with "
                f"{str(needed.dtype).removeprefix('torch.')}: {name}. If they are quantized, save them as floating-point numbers."
            )


def build_model(builder: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Return the network that ``package.module:function`` builds from keyword arguments.

    Modules of the working directory can be imported.

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
        with as_a_guest(f"calling {builder}"):
            model: Any = function(**arguments)
    except Exception as error:  # the user's code may raise anything; the message must still name the setting
        raise TeacherError(
            f"teacher.builder {builder} failed with teacher.arguments {dict(arguments)}: {type(error).__name__}: "
            f"{first_line(error)}"
        ) from error
    if not isinstance(model, nn.Module):
        raise TeacherError(f"teacher.builder {builder} returned a {type(model).__name__}, not a torch.nn.Module.")
    return unwrapped(model)


def _first_and_last(names: list[str]) -> list[str]:
    if len(names) <= _FIRST_LISTED + 1:
        return names
    return [*names[:_FIRST_LISTED], "...", names[-1]]


class CheckpointTeacherConfig(TeacherSourceConfig):
    """A checkpoint file and the function that builds the network it belongs to."""

    kind: Literal["checkpoint"]
    checkpoint: Path | None = Field(
        None, description="File with the weights: .safetensors, or a torch file with a state dict."
    )
    weights: str | None = Field(
        None,
        description="Which weights to take from a file with several sets: the keys that lead to them, such as "
        "ema.state_dict, or the prefix of their names.",
    )
    builder: str = Field(
        pattern=r"^\w+(\.\w+)*:\w+(\.\w+)*$",
        description="package.module:function that returns the untrained network. This runs your code.",
    )
    arguments: dict[str, Any] = Field(default_factory=dict, description="Keyword arguments of the builder.")
    image_shape: ImageShape = Field(description="(channels, height, width) of one input.")
    num_classes: Classes | None = Field(None, description="Number of classes. The network must have as many outputs.")
    mean: tuple[float, ...] = Field(
        description="Mean of the pixels in [0, 1] that the teacher was trained with, one number per channel."
    )
    std: tuple[float, ...] = Field(description="Standard deviation of the same pixels, one number per channel.")

    def imported_code(self) -> dict[str, str]:
        """Return the builder."""
        return {"builder": self.builder}

    def file(self) -> Path:
        """Return the path of the checkpoint.

        Raises:
            TeacherError: ``checkpoint`` is not set.
        """
        if self.checkpoint is None:
            raise TeacherError("teacher.checkpoint is not set. Give the file: --set teacher.checkpoint=PATH.")
        return user_path(self.checkpoint)

    def load(self, cache: Location | Path) -> Teacher:
        """Build the network and load the weights into it; ``cache`` is not used."""
        path = self.file()
        state = read_state_dict(path, self.weights)
        model = build_model(self.builder, self.arguments)
        load_weights(
            model,
            state,
            str(path),
            network=f"the network that teacher.builder ({self.builder}) makes",
            remedy=f"Check teacher.builder, teacher.arguments ({self.arguments}) and teacher.checkpoint.",
        )
        origin = json.dumps([self.builder, self.arguments], sort_keys=True, default=str)
        return freeze_teacher(
            path.name, model, self.image_shape, self.mean, self.std, self.num_classes, origin,
            builder=self.builder.partition(":")[0],
        )  # fmt: skip
