"""A network is tried before it becomes a teacher: what it is given, what it answers, and what it does not stand."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dfnas_ray.errors import TeacherError, first_line
from dfnas_ray.teachers.guarded import GuardedNetwork

logger = logging.getLogger(__name__)

_IMAGES = 3
_SAME = 1e-3  # of the largest logit: what rounding and the order of sums may change
_LARGEST_STD = 2.0  # of pixels in [0, 1]


def check_statistics(mean: Sequence[float], std: Sequence[float], image_shape: tuple[int, int, int]) -> None:
    """Make sure that input statistics are those of pixels in [0, 1], one number per channel.

    Raises:
        TeacherError: names them, and what would be right.
    """
    given = f"teacher.mean {tuple(mean)} and teacher.std {tuple(std)}"
    if len(mean) != image_shape[0] or len(std) != image_shape[0]:
        raise TeacherError(
            f"{given} must have one number for each of the {image_shape[0]} channels of teacher.image_shape {image_shape}."
        )
    if not all(map(math.isfinite, (*mean, *std))):
        raise TeacherError(f"{given} must be finite numbers.")
    if min(std) <= 0:
        raise TeacherError(f"teacher.std {tuple(std)} must be positive: pixels are divided by it.")
    if max(map(abs, mean)) > 1 or max(std) > _LARGEST_STD:
        scaled = [tuple(round(value / 255, 4) for value in values) for values in (mean, std)]
        raise TeacherError(
            f"{given} must be those of pixels in [0, 1]. If they are of pixels in 0 to 255, write mean {scaled[0]} and std "
            f"{scaled[1]}."
        )


def check_numbers(name: str, model: nn.Module) -> None:
    """Make sure that weights and running statistics are numbers that a network can compute with.

    Raises:
        TeacherError: names the first that are not.
    """
    wrong = [
        key
        for key, value in model.state_dict(keep_vars=True).items()
        if isinstance(value, Tensor)
        and not torch.nn.parameter.is_lazy(value)
        and value.is_floating_point()
        and not bool(torch.isfinite(value).all())
    ]
    if wrong:
        raise TeacherError(
            f"Teacher {name} has weights that are NaN or infinite: {_listed(wrong)}. Its file is damaged."
        )
    negative = [
        f"{key}.running_var"
        for key, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.running_var is not None and bool((module.running_var < 0).any())
    ]
    if negative:
        raise TeacherError(f"Teacher {name} has negative variances: {_listed(negative)}. Its file is damaged.")


class TriedNetwork(NamedTuple):
    """What came of a trial.

    Attributes:
        model: The network, guarded where it has to be.
        logits: (B, num_classes) of some noise.
    """

    model: nn.Module
    logits: Tensor


def try_network(
    name: str, model: nn.Module, image_shape: tuple[int, int, int], mean: Sequence[float], std: Sequence[float]
) -> TriedNetwork:
    """Let a network answer noise in all the ways in which it will be asked.

    Args:
        name: What the user calls it.
        model: In evaluation mode.
        image_shape: (C, H, W).
        mean: Of pixels in [0, 1].
        std: Likewise.

    Raises:
        TeacherError: it does not take such images, does not return logits, or cannot be copied.
    """
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand((_IMAGES, *image_shape), generator=generator)
    images = (pixels - _channels(mean)) / _channels(std)
    given = images.clone()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            logits = model(given)
        except Exception as error:  # a model may refuse in any way; some assert
            raise TeacherError(
                f"Teacher {name} does not take images of teacher.image_shape {image_shape} (C, H, W): {first_line(error)}"
            ) from error
        _check_logits(name, logits, images, model)
        if torch.equal(given, images):
            guarded = model
        else:
            logger.warning("Teacher %s changes its input in place: it is given copies.", name)
            guarded = GuardedNetwork(model)
        _check_steady(name, guarded, images, logits)
        return TriedNetwork(_without_what_fails(name, guarded, images), logits)


def _check_logits(name: str, logits: object, images: Tensor, model: nn.Module) -> None:
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != _IMAGES:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise TeacherError(f"Teacher {name} must return logits (B, num_classes) in evaluation mode; it returned {got}.")
    if logits.shape[1] < 2:
        raise TeacherError(
            f"Teacher {name} has one output. A classifier must have one logit for each class: give a network with two outputs, "
            "such as torch.cat([-z, z], 1) / 2 of a single logit z."
        )
    if not bool(torch.isfinite(logits).all()):
        raise TeacherError(
            f"Teacher {name} answers noise with NaN or infinite logits. Check teacher.mean and teacher.std."
        )
    if not _between_0_and_1(logits):
        return
    answers = torch.cat([logits, model(20 * images)])  # logits would grow
    if not _between_0_and_1(answers):
        return
    sums = bool(((answers.sum(1) - 1).abs() < _SAME).all())
    if sums or bool((answers != answers[0, 0]).any()):  # a last layer of zeros answers 0 to everything
        kind = "probabilities (a softmax)" if sums else "numbers between 0 and 1 (a sigmoid)"
        raise TeacherError(
            f"Teacher {name} returns {kind} where logits are needed: labels would be wrong. Leave the last activation out of "
            "the network that teacher.builder returns."
        )


def _between_0_and_1(answers: Tensor) -> bool:
    return bool(((answers >= 0) & (answers <= 1)).all())


def _check_steady(name: str, model: nn.Module, images: Tensor, logits: Tensor) -> None:
    """Say when an answer depends on chance, or on the other images of its batch."""
    if not _agree(model(images.clone()), logits):
        logger.warning(
            "Teacher %s answers the same images differently each time: something in it is random in evaluation mode too, such as "
            "a dropout. Its accuracy and its labels change from call to call.",
            name,
        )
        return
    try:
        alone = torch.cat([model(image[None].clone()) for image in images])
    except Exception as error:  # of whatever kind
        logger.warning("Teacher %s does not take one image alone (%s).", name, first_line(error))
        return
    if not _agree(alone, logits):
        layers = [
            key
            for key, module in model.named_modules()
            if isinstance(module, _BatchNorm) and module.running_var is None
        ]
        because = f": {_listed(layers)} without running statistics" if layers else ""
        logger.warning(
            "What teacher %s answers depends on the other images of the batch%s. Its accuracy is one for this batch size alone.",
            name,
            because,
        )


def _without_what_fails(name: str, model: nn.Module, images: Tensor) -> nn.Module:
    """Return the network, guarded from the layout and the precision in which it does not compute."""
    try:
        copied = copy.deepcopy(model)
    except Exception as error:  # whatever an attribute of the model raises
        raise TeacherError(
            f"Teacher {name} cannot be copied: {first_line(error)}. Remove what cannot be copied from the model's "
            "attributes, such as a lock or a generator."
        ) from error
    keeps_layout = _fails(copied.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        keeps_precision = _fails(model, images.clone())
    if keeps_layout:
        logger.warning(
            "Teacher %s does not compute with channels last in memory: it is left as it is, a little slower.", name
        )
    if keeps_precision:
        logger.warning("Teacher %s does not compute in bfloat16: it computes in float32, slower.", name)
    if not (keeps_layout or keeps_precision):
        return model
    inner = model.model if isinstance(model, GuardedNetwork) else model
    return GuardedNetwork(inner, keeps_layout, keeps_precision)


def _fails(model: nn.Module, images: Tensor) -> bool:
    try:
        model(images)
    except Exception:  # of whatever kind
        return True
    return False


def _agree(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and bool(
        (first - second).abs().max() <= _SAME * second.abs().max().clamp_min(1e-6)
    )


def _channels(values: Sequence[float]) -> Tensor:
    return torch.tensor(list(values)).view(1, -1, 1, 1)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
