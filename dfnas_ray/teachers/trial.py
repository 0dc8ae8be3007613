"""The trial of a network before it becomes a teacher: checks of its statistics, weights, outputs and needs."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from dfnas_ray.errors import TeacherError, first_line
from dfnas_ray.ops.networks import copy_network
from dfnas_ray.surroundings import random_states, set_random_states
from dfnas_ray.teachers.first_calls import FirstCalls, first_calls, listed
from dfnas_ray.teachers.guarded import GuardedNetwork, Needs

logger = logging.getLogger(__name__)

_IMAGES = 3
_SAME = 1e-3  # share of the largest logit that rounding and the order of sums may change
_SAME_COPY = 1e-2  # the same, for another memory layout
_STILL_CLEAR = 0.5  # share of the spread of logits that a lower precision may change
_LARGEST_STD = 2.0  # for pixels in [0, 1]


def check_statistics(mean: Sequence[float], std: Sequence[float], image_shape: tuple[int, int, int]) -> None:
    """Make sure that input statistics are those of pixels in [0, 1], one number per channel.

    Raises:
        TeacherError: they are not; names them, and what would be right.
    """
    given = f"teacher.mean {tuple(mean)} and teacher.std {tuple(std)}"
    if len(mean) != image_shape[0] or len(std) != image_shape[0]:
        first, *_, last = image_shape
        swapped = len(mean) == len(std) == last
        hint = f" Its order is channels, height, width: ({last}, {first}, {image_shape[1]})." if swapped else ""
        raise TeacherError(
            f"{given} must have one number for each of the {first} channels of teacher.image_shape {image_shape}.{hint}"
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
    """Make sure that weights and running statistics are finite, and that no running variance is negative.

    Other buffers may be infinite, as attention masks are, but not NaN.

    Raises:
        TeacherError: some are not; names the first of them.
    """
    statistics = ("running_mean", "running_var")
    tensors: dict[str, Tensor] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    weights = dict(model.named_parameters())
    wrong = [
        key
        for key, value in tensors.items()
        if not is_lazy(value)
        and (value.is_floating_point() or value.is_complex())
        and bool((~value.isfinite() if key in weights or key.endswith(statistics) else value.isnan()).any())
    ]
    if wrong:
        raise TeacherError(
            f"Teacher {name} has weights that are NaN or infinite: {listed(wrong)}. Its file is damaged, or it lacks "
            "values that were never filled in."
        )
    negative = [key for key, value in tensors.items() if key.endswith("running_var") and bool((value < 0).any())]
    if negative:
        raise TeacherError(f"Teacher {name} has negative variances: {listed(negative)}. Its file is damaged.")


class TriedNetwork(NamedTuple):
    """The result of a trial.

    Attributes:
        model: The network, in a `GuardedNetwork` if it needs one.
        logits: (B, num_classes), its logits for some noise.
    """

    model: nn.Module
    logits: Tensor


def try_network(
    name: str,
    model: nn.Module,
    image_shape: tuple[int, int, int],
    mean: Sequence[float],
    std: Sequence[float],
    num_classes: int | None = None,
) -> TriedNetwork:
    """Call a network on noise in all the ways in which it will be used, and return it with the protection it needs.

    Args:
        name: The user's name for it.
        model: The network, in evaluation mode.
        image_shape: (C, H, W) of one input.
        mean: Mean per channel, of pixels in [0, 1].
        std: Standard deviation per channel, of the same pixels.
        num_classes: The number of classes that the user expects, if it is known. It tells logits from other outputs.

    Raises:
        TeacherError: it does not take such images, does not return logits, or cannot be copied.
    """
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand((2 * _IMAGES, *image_shape), generator=generator)
    images, others = ((pixels - _channels(mean)) / _channels(std)).split(_IMAGES)
    states = random_states()
    try:
        with torch.no_grad():
            first = first_calls(name, model, images, others, num_classes)
            guarded = GuardedNetwork(model, first.needs) if first.needs != Needs() else model
            _check_logits(name, first.logits, images, guarded)
            is_random = _check_chance(name, guarded, images, first)
            guarded = _for_single_images(name, guarded, images, first)
            if not is_random:
                _check_batch(name, guarded, images, first.logits)
            return TriedNetwork(_without_what_fails(name, guarded, others, is_random), first.logits)
    finally:
        set_random_states(states)


def _check_logits(name: str, logits: Tensor, images: Tensor, model: nn.Module) -> None:
    if logits.ndim != 2 or len(logits) != _IMAGES:
        raise TeacherError(
            f"Teacher {name} must return logits (B, num_classes) in evaluation mode; it returned {tuple(logits.shape)}."
        )
    if logits.shape[1] < 2:
        raise TeacherError(
            f"Teacher {name} has one output. A classifier must have one logit for each class: give a network with two outputs, "
            "such as torch.cat([-z, z], 1) / 2 of a single logit z."
        )
    if not bool(torch.isfinite(logits).all()):
        infinite = [
            key for key, value in model.named_buffers() if value.is_floating_point() and bool(value.isinf().any())
        ]
        hint = f" Its buffers {listed(infinite)} are infinite." if infinite else ""
        raise TeacherError(
            f"Teacher {name} answers noise with NaN or infinite logits. Check teacher.mean and teacher.std.{hint}"
        )
    if bool((logits < 0).any()):
        return
    answers = torch.cat([logits, model(20 * images)])  # logits would grow, probabilities would not
    if bool((answers < 0).any()):
        return
    sums = answers.sum(1)
    spread = (answers - answers.mean(1, keepdim=True)).abs().max()
    is_share = bool(((sums - 1).abs() < _SAME).all())
    is_share |= bool(spread > 0) and bool(sums.max() - sums.min() <= _SAME * spread)  # another sum, such as 100 %
    varies = bool((answers != answers[0, 0]).any())  # a last layer of zeros returns only zeros
    if is_share or (varies and not bool((answers > 1).any())):
        kind = "probabilities (a softmax)" if is_share else "numbers between 0 and 1 (a sigmoid)"
        raise TeacherError(
            f"Teacher {name} returns {kind} where logits are needed: labels would be wrong. Leave the last activation out of "
            "the network that teacher.builder returns."
        )


def _check_chance(name: str, model: nn.Module, images: Tensor, first: FirstCalls) -> bool:
    """Return whether outputs are random, and log a warning if they are."""
    if not _agree(first.again if first.needs == Needs() else model(images.clone()), first.logits):
        said = "answers the same images differently each time"
    elif first.draws:
        said = "draws random numbers, so it may answer the same images differently each time"
    else:
        return False
    logger.warning(
        "Teacher %s %s: something in it is random in evaluation mode too, such as a dropout. Its accuracy and its labels change "
        "from call to call.",
        name, said,
    )  # fmt: skip
    return True


def _for_single_images(name: str, model: nn.Module, images: Tensor, first: FirstCalls) -> nn.Module:
    """Return the network, given a copy beside a single image if it does not answer one alone with (1, num_classes).

    Raises:
        TeacherError: it does not take two images either.
    """
    expected = (1, first.logits.shape[1])
    try:
        if (found := tuple(model(images[:1].clone()).shape)) == expected:
            return model
        reason = f"answers a single image with {found}, without the batch dimension (use flatten(1), not squeeze())"
    except Exception as error:  # of any kind; some assert
        reason = f"does not take a single image ({_said(error)})"
    guarded = GuardedNetwork(
        model.model if isinstance(model, GuardedNetwork) else model, first.needs._replace(companion=True)
    )
    try:
        found = tuple(guarded(images[:1].clone()).shape)
        problem = "" if found == expected else f"two images give {found[1:]} per image"
    except Exception as error:  # of any kind
        problem = _said(error)
    if problem:
        raise TeacherError(
            f"Teacher {name} {reason}, and two images fail, too ({problem}). Its network must take a batch of any size and "
            "return (B, num_classes)."
        )
    logger.warning("Teacher %s %s. It is given a copy beside each such image.", name, reason)
    return guarded


def _said(error: Exception) -> str:
    kind, line = type(error).__name__, first_line(error)
    return kind if line == kind else f"{kind}: {line}"


def _check_batch(name: str, model: nn.Module, images: Tensor, logits: Tensor) -> None:
    """Log a warning if outputs depend on the other images of the batch."""
    alone = torch.cat([model(image[None].clone()) for image in images])
    if not _agree(alone, logits):
        layers = [
            key
            for key, module in model.named_modules()
            if isinstance(module, _BatchNorm) and module.running_var is None
        ]
        because = f": {listed(layers)} without running statistics" if layers else ""
        logger.warning(
            "The output of teacher %s depends on the other images of the batch%s. Its accuracy varies with the batch "
            "size.",
            name,
            because,
        )


def _without_what_fails(name: str, model: nn.Module, images: Tensor, is_random: bool) -> nn.Module:
    """Return the network, protected from the memory layout and the precision in which it does not work.

    Raises:
        TeacherError: it cannot be copied, or a copy gives other results.
    """
    try:
        copied = copy_network(model)
    except Exception as error:  # whatever an attribute of the model raises
        raise TeacherError(cannot_be_copied(f"Teacher {name}", error)) from error
    expected = None if is_random else model(images.clone())
    if _fails(copied, images.clone(), expected, _SAME):
        raise TeacherError(
            f"A copy of teacher {name} answers differently: something in it, such as a hook or a function among its attributes, "
            "refers to parts of the network that was copied. Let it find them through its arguments or through self."
        )
    keeps_layout = _fails(
        copied.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last), expected, _SAME_COPY
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        keeps_precision = _fails(model, images.clone(), expected, None)
    if keeps_layout:
        logger.warning(
            "Teacher %s does not work in channels_last memory format: it keeps its own, which is a little slower.", name
        )
    if keeps_precision:
        logger.warning("Teacher %s does not compute in bfloat16: it computes in float32, which is slower.", name)
    if not (keeps_layout or keeps_precision):
        return model
    inner = model.model if isinstance(model, GuardedNetwork) else model
    needs = model.needs if isinstance(model, GuardedNetwork) else Needs()
    return GuardedNetwork(
        inner, needs._replace(layout=needs.layout or keeps_layout, float32=needs.float32 or keeps_precision)
    )


def _fails(model: nn.Module, images: Tensor, expected: Tensor | None, tolerance: float | None) -> bool:
    """Return whether a network fails, or does not return what is expected.

    Args:
        model: The network.
        images: Its input.
        expected: The right output, or None if outputs are random.
        tolerance: The allowed difference as a share of the largest logit. If it is None, the difference may be
            `_STILL_CLEAR` of the spread of the logits.
    """
    try:
        answer: Tensor = model(images).float()
    except Exception:  # of any kind
        return True
    if expected is None:
        return False
    if answer.shape != expected.shape or not bool(torch.isfinite(answer).all()):
        return True
    size, share = expected, tolerance
    if share is None:
        size, share = expected - expected.mean(1, keepdim=True), _STILL_CLEAR
        if bool(size.abs().max() <= 1e-6 * expected.abs().max()):  # no class differs from another in any precision
            return False
    return bool((answer - expected).abs().max() > share * size.abs().max().clamp_min(1e-6))


def cannot_be_copied(what: str, error: Exception) -> str:
    """Return the message for a network that cannot be copied."""
    return (
        f"{what} cannot be copied: {first_line(error)}. Remove what cannot be copied from the model's attributes, such as a lock "
        "or a generator."
    )


def _agree(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and bool(
        (first - second).abs().max() <= _SAME * second.abs().max().clamp_min(1e-6)
    )


def _channels(values: Sequence[float]) -> Tensor:
    return torch.tensor(list(values)).view(1, -1, 1, 1)
