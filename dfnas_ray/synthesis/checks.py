"""Checks before synthesis, and of its first images: what is bound to fail is found early."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dfnas_ray.config.registry import describe, is_built_in
from dfnas_ray.errors import SynthesisError, first_line
from dfnas_ray.limits import GREY_OR_RGB
from dfnas_ray.ops.networks import copy_network, device_of
from dfnas_ray.surroundings import random_states, set_random_states
from dfnas_ray.synthesis.base import SynthesizerConfig
from dfnas_ray.synthesis.observed import FeatureTap, ObservedTeacher
from dfnas_ray.synthesis.regularizers import OBSERVABLE, Observation, RegularizerConfig
from dfnas_ray.synthesis.settings import SetSettings
from dfnas_ray.teachers.base import Teacher
from dfnas_ray.teachers.units import ImageUnits

_FEWEST_STEPS = 20


def check_synthesis(teacher: Teacher, settings: SetSettings, method: SynthesizerConfig) -> None:
    """Make sure that this teacher can make these images.

    Raises:
        SynthesisError: the teacher has no BatchNorm for R_bn, does not accept images of a scale, passes no gradient to
            its input, or its images cannot be stored.
    """
    channels, height, width = teacher.image_shape
    if channels not in GREY_OR_RGB:
        raise SynthesisError(
            f"Teacher {teacher.name} takes {channels} channels; only grey and RGB images (1 or 3 channels) can be made. If the "
            "other channels follow from RGB, let teacher.builder return a network that computes them from 3 channels, and set "
            f"teacher.image_shape=[3, {height}, {width}] with its mean and std."
        )
    for name, term in settings.regularizers.terms().items():
        reason = term.unsuitable(teacher.model if is_built_in(type(term)) else teacher.lent().model)
        if reason:
            raise SynthesisError(
                f"Teacher {teacher.name} {reason}. Set synthesis.regularizers.{name}.weight=0 to leave the term out; expect "
                "images further from the real ones."
            )
    try:
        method.canvas_size(settings, height, width)
    except ValueError as error:
        raise SynthesisError(str(error)) from error
    method.check_teacher(teacher if is_built_in(type(method)) else teacher.lent(), settings)
    check_gradient(teacher)
    check_terms(teacher, settings)


def check_gradient(teacher: Teacher) -> None:
    """Make sure that images can be optimised: that a gradient flows through the network to its input.

    Raises:
        SynthesisError: there is no gradient, it is zero, or it is not finite.
    """
    model = copy_network(teacher.model)  # a network may keep its activations, and their graph with them
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, *teacher.image_shape, generator=generator)
    images = ImageUnits(teacher, torch.device("cpu")).to_teacher(noise).to(device_of(model)).requires_grad_()
    states = random_states()
    gradient, reason, is_constant = None, "", False
    try:
        logits = model(images.clone())
        is_constant = bool((logits[0] == logits[1]).all())
        weights = torch.randn(logits.shape, generator=generator).to(logits)
        if logits.requires_grad:
            (gradient,) = torch.autograd.grad((logits * weights).sum(), images, allow_unused=True)
    except Exception as error:  # of any kind, such as an operation without a gradient
        reason = f" ({first_line(error)})"
    finally:
        set_random_states(states)
    if gradient is None or not bool(torch.isfinite(gradient).all()) or not bool((gradient != 0).any()):
        if gradient is not None and is_constant and bool((gradient == 0).all()):
            raise SynthesisError(
                f"Teacher {teacher.name} cannot be inverted: its logits are the same for all images. Its last layer is zero, as "
                "in some networks before their training, or an earlier one is. Is the checkpoint the trained one?"
            )
        is_not_finite = gradient is not None and bool((gradient != 0).any())
        found = "the gradient at its input is not finite" if is_not_finite else "no gradient reaches its input"
        raise SynthesisError(
            f"Teacher {teacher.name} cannot be inverted: {found}{reason}. "
            "Look for torch.no_grad(), inference_mode(), detach(), rounding or a conversion to NumPy in its forward."
        )


def check_first_batch(teacher: Teacher, classes: Tensor, logits: Tensor, steps: int, fell: bool | None) -> None:
    """Check the first finished images, before whole shards of them are made.

    Args:
        teacher: The teacher that classified them.
        classes: (B,), the classes that were asked for.
        logits: (B, num_classes), the teacher's logits.
        steps: Optimiser steps of each image. After a few steps, nothing can be expected, and the check passes.
        fell: Whether the cross entropy has fallen; None: it was not measured.

    Raises:
        SynthesisError: no more classes are right than by chance, and the loss is not known to have fallen.
    """
    count, chance = len(classes), 1 / teacher.num_classes
    hits = int((logits.argmax(1) == classes).sum())
    if steps < _FEWEST_STEPS or fell or hits > count * chance + 3 * math.sqrt(count * chance * (1 - chance)):
        return
    loss = "" if fell is None else ", and the cross entropy is no lower"
    raise SynthesisError(
        f"The first {count} images came to nothing: teacher {teacher.name} sees the class asked for in {hits} of them, no more "
        f"than by chance, after {steps} steps{loss}. Is synthesis.method.lr right? Are "
        "teacher.mean, teacher.std and teacher.image_shape those of its training? Does its forward keep the gradient?"
    )


def check_terms(teacher: Teacher, settings: SetSettings) -> None:
    """Try the regularisers of other packages on two images, before torch.compile hides where they fail.

    Raises:
        SynthesisError: one does not keep the contract; names package, member and rule.
    """
    terms = {name: term for name, term in settings.regularizers.terms().items() if not is_built_in(type(term))}
    if not terms:
        return
    observed = ObservedTeacher(teacher.model)
    features = FeatureTap(observed)
    device = device_of(observed)
    images = torch.zeros(2, *teacher.image_shape, device=device)
    targets = torch.full((2, teacher.num_classes), 1 / teacher.num_classes, device=device)
    with torch.no_grad():
        logits, bn_inputs = observed(images)
        step = torch.tensor(0, device=device)
        seen = {"bn_inputs": bn_inputs, "features": features.take(), "step": step, "student_logits": logits}
        for name, term in terms.items():
            asked = {part: value for part, value in seen.items() if part in term.observes}
            reason = _broken_rule(term, Observation(images, logits=logits, targets=targets)._replace(**asked))
            if reason:
                raise SynthesisError(
                    f"synthesis.regularizers.{name}: the regulariser {describe(type(term))} breaks its contract: {reason}."
                )


def _broken_rule(term: RegularizerConfig, observation: Observation) -> str:
    unknown = sorted(term.observes - OBSERVABLE)
    if unknown:
        return f"observes names {unknown[0]!r}; it may name {', '.join(sorted(OBSERVABLE))}"
    versions = [layer.x._version for layer in observation.bn_inputs]
    try:
        value: object = term.loss()(observation.copied())
    except Exception as error:  # code of another package may raise anything
        reason = f"loss() fails on two images: {type(error).__name__}: {first_line(error)}"
        missing = sorted(OBSERVABLE - term.observes)
        return reason + (f" (it does not observe {', '.join(missing)})" if missing else "")
    if [layer.x._version for layer in observation.bn_inputs] != versions:
        return "loss() changes what BatchNorm layers received (bn_inputs) in place; it may change copies"
    if not isinstance(value, Tensor) or value.ndim or not value.is_floating_point():
        got = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        return f"loss() must return a scalar, not {got}"
    return ""
