"""What can be known to fail before the first step of synthesis."""

from __future__ import annotations

import torch
from torch import Tensor

from dfnas_ray.config.registry import describe, is_built_in
from dfnas_ray.errors import SynthesisError, first_line
from dfnas_ray.synthesis.base import SynthesizerConfig
from dfnas_ray.synthesis.observed import FeatureTap, ObservedTeacher
from dfnas_ray.synthesis.regularizers import OBSERVABLE, Observation, RegularizerConfig
from dfnas_ray.synthesis.settings import SetSettings
from dfnas_ray.teachers.base import Teacher


def check_synthesis(teacher: Teacher, settings: SetSettings, method: SynthesizerConfig) -> None:
    """Make sure that these images can be asked of this teacher.

    Raises:
        SynthesisError: the teacher has no BatchNorm for R_bn, does not take images of a scale, or its images cannot be
            stored.
    """
    channels, height, width = teacher.image_shape
    if channels not in (1, 3):
        raise SynthesisError(
            f"Teacher {teacher.name} takes {channels} channels; synthetic images are stored as PNG, which has 1 or 3."
        )
    for name, term in settings.regularizers.terms().items():
        reason = term.unsuitable(teacher.model)
        if reason:
            raise SynthesisError(
                f"Teacher {teacher.name} {reason}. Set synthesis.regularizers.{name}.weight=0 to leave the term out; expect "
                "images further from the real ones."
            )
    try:
        method.canvas_size(settings, height, width)
    except ValueError as error:
        raise SynthesisError(str(error)) from error
    method.check_teacher(teacher, settings)
    check_terms(teacher, settings)


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
    device = next(observed.parameters()).device
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
    try:
        value: object = term.loss()(observation)
    except Exception as error:  # code of another package may raise anything
        reason = f"loss() fails on two images: {type(error).__name__}: {first_line(error)}"
        missing = sorted(OBSERVABLE - term.observes)
        return reason + (f" (it does not observe {', '.join(missing)})" if missing else "")
    if not isinstance(value, Tensor) or value.ndim or not value.is_floating_point():
        got = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        return f"loss() must return a scalar, not {got}"
    return ""
