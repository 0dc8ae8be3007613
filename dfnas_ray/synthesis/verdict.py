"""The verdict on a finished set: its measures are compared with reference values, and it says what to try.

The references were measured (experiments/results/images.md) on sets from which networks learned well, and on sets
without the BatchNorm term, with too few steps, and of noise. No real image is involved. A set that passes may still be
poor for a teacher unlike those that were measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from shlex import quote
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict

from dfnas_ray.config.registry import SettingValues
from dfnas_ray.config.yaml_text import write_on_a_line
from dfnas_ray.errors import SynthesisError
from dfnas_ray.formatting import number, percent
from dfnas_ray.synthesis.config import SynthesisConfig
from dfnas_ray.synthesis.inversion.synthesizer import InversionConfig
from dfnas_ray.synthesis.quality import Quality, QualityReport
from dfnas_ray.synthesis.settings import batch_within
from dfnas_ray.synthesis.synthesizers import SYNTHESIZERS
from dfnas_ray.teachers.base import Teacher
from dfnas_ray.teachers.fresh import why_not_fresh

Kind: TypeAlias = Literal["statistics", "alike", "unsure", "classes", "student"]


@dataclass(frozen=True)
class Reference:
    """The values of a measure that separate sound sets from bad ones.

    Attributes:
        limit: The worst value that is accepted.
        sound: The worst value among the sets from which networks learned well.
        bad: The best value among the bad sets that this measure should find.
    """

    limit: float
    sound: float
    bad: float


DOMAIN_GAP = Reference(0.1, sound=0.086, bad=0.109)
"""At most: distance from the teacher's BatchNorm statistics."""

RELATIVE_DISTANCE = Reference(0.2, sound=0.31, bad=0.15)
"""At least: distance within a class, as a share of the distance of any two images."""

DUPLICATES = 0.1
"""At most: images that have a near copy in their class."""

AGREEMENT = Reference(0.4, sound=0.55, bad=0.33)
"""At least: images of the first round in which the teacher sees the class that was asked for."""

CLASSES = Reference(0.75, sound=0.9, bad=0.5)
"""At least: share of classes that the teacher sees often, as `classes_seen` counts them."""

STUDENT = Reference(0.5, sound=0.59, bad=0.49)
"""At least: new images on which the generator's student names the teacher's class."""

PER_CLASS = 10
"""Images that a class needs on average, so that the share of classes means something."""


class Finding(BaseModel):
    """One problem of a set.

    Attributes:
        kind: What is wrong.
        text: A sentence on what is wrong, with the measured value and the reference.
        advice: What to try.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    text: str
    advice: str


class Verdict(BaseModel):
    """The problems of a set.

    Attributes:
        findings: All findings, the most important first; empty if there are none.
        summary: One sentence on the whole.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    findings: tuple[Finding, ...] = ()
    summary: str

    @property
    def lines(self) -> tuple[str, ...]:
        """The whole verdict in sentences, for people."""
        return (self.summary, *(f"{finding.text} {finding.advice}" for finding in self.findings))


def judge(report: QualityReport, teacher: Teacher, config: SynthesisConfig) -> Verdict:
    """Return the verdict on a set of images.

    Args:
        report: The measures of the set. Those that are missing or NaN are not judged.
        teacher: The teacher of the set, which decides what can be advised.
        config: The settings that the images were made with.
    """
    overall, first = report.overall, report.first
    advice = _Advice(config, teacher)
    findings = [
        _far(overall, advice),
        _alike(overall, advice),
        _unsure(first, advice),
        _classes(overall, config.images_in_total, teacher.num_classes, advice),
        _student(overall, advice),
    ]
    found = tuple(finding for finding in findings if finding is not None)
    if not found:
        return Verdict(summary=f"Nothing speaks against the images: {_figures(overall, first)}.")
    return Verdict(
        findings=found,
        summary="The images are doubtful, and so is what learns from them. dfnas sweep looks for better settings "
        "without a real image."
        if any(finding.kind != "student" for finding in found)
        else f"Nothing speaks against the images themselves: {_figures(overall, first)}.",
    )


class _Advice:
    """What to try: settings that are accepted for the teacher, beside those that the set was made with."""

    def __init__(self, config: SynthesisConfig, teacher: Teacher):
        self.config, self.teacher = config, teacher
        self.kind = config.method.kind
        self.is_generator = self.kind == "generator"
        self.has_student = self.is_generator and config.method.has_student
        self.has_statistics = bool(teacher.batch_norms())

    @property
    def first(self) -> str:
        """What comes before any other advice; empty if the term that matters most is in use."""
        if not self.has_statistics:
            more = ", or let the student take more steps (synthesis.method.student.steps)" if self.has_student else ""
            images = f" Make more images (synthesis.num_shards){more}." if self.is_generator else ""
            return f"The teacher has no BatchNorm statistics, which would help most.{images}"
        if self.config.regularizers.bn_statistics.weight == 0:
            return "Set synthesis.regularizers.bn_statistics.weight, which is 0, to 10."
        return ""

    @property
    def longer(self) -> str:
        if self.is_generator:
            return "Make more images (synthesis.num_shards): a generator's first batches are its worst."
        if self.kind == "inversion":
            return "Take more steps (synthesis.method.scales)."
        return "Make more images, or take more steps."

    @property
    def other(self) -> str:
        method = self._inversion() if self.is_generator else self._generator()
        chosen = SYNTHESIZERS.validate(method)
        if self.config.images_per_shard % chosen.batch_size:
            method["batch_size"] = batch_within(self.config.images_per_shard, chosen.batch_size)
        settings = {"method": method if len(method) > 1 else method["kind"]}
        if not chosen.has_student:
            terms = self.config.regularizers.terms()
            needing = [name for name, term in terms.items() if "student_logits" in term.observes]
            settings |= {f"regularizers.{name}.weight": 0 for name in needing}
        options = " ".join(
            f"--set {quote(f'synthesis.{name}={write_on_a_line(value)}')}" for name, value in settings.items()
        )
        return f"Try the other synthesizer: {options}."

    def _inversion(self) -> SettingValues:
        """Return the inversion, with a single scale if the teacher or the canvas cannot have its usual ones."""
        usual = InversionConfig()
        try:
            usual.canvas_size(self.config, *self.teacher.image_shape[1:])
            usual.check_teacher(self.teacher, self.config)
        except (ValueError, SynthesisError):
            return {"kind": "inversion", "scales": [{"scale": 1, "steps": sum(usual.scale_steps)}]}
        return {"kind": "inversion"}

    def _generator(self) -> SettingValues:
        """Return the generator, without a student if the teacher cannot have one."""
        return {"kind": "generator", **({"student": None} if why_not_fresh(self.teacher.model) else {})}


def _far(overall: Quality, advice: _Advice) -> Finding | None:
    gap = overall.get("domain_gap", math.nan)
    if not gap > DOMAIN_GAP.limit:
        return None
    larger = advice.first or f"{advice.longer} Or raise synthesis.regularizers.bn_statistics.weight."
    return Finding(
        kind="statistics",
        text=f"They are far from the teacher's BatchNorm statistics: domain gap {number(gap)}; sound sets had at most "
        f"{number(DOMAIN_GAP.sound)}.",
        advice=larger,
    )


def _alike(overall: Quality, advice: _Advice) -> Finding | None:
    relative, duplicates = (overall.get(f"diversity_{name}", math.nan) for name in ("relative", "duplicates"))
    if not (relative < RELATIVE_DISTANCE.limit or duplicates > DUPLICATES):
        return None
    copies = f", and {percent(duplicates)} have a near copy" if duplicates > DUPLICATES else ""
    more = "" if advice.kind != "inversion" else "Or ask for soft labels in more rounds (synthesis.method.rounds)."
    return Finding(
        kind="alike",
        text=f"Images of one class are too alike: their distance is {percent(relative, 0)} of that of any two images{copies}; "
        f"sound sets had at least {percent(RELATIVE_DISTANCE.sound, 0)}.",
        advice=" ".join(part for part in (advice.first, advice.other, more) if part),
    )


def _unsure(first: Quality, advice: _Advice) -> Finding | None:
    agreement = first.get("agreement", math.nan)
    if not agreement < AGREEMENT.limit:
        return None
    confidence = first.get("confidence", math.nan)
    return Finding(
        kind="unsure",
        text=f"The teacher does not see what was asked for: in {percent(agreement, 0)} of the images its likeliest class is the "
        f"one asked for, with a mean probability of {percent(confidence, 0)}; sound sets had at least "
        f"{percent(AGREEMENT.sound, 0)}.",
        advice=f"{advice.longer} Check that the teacher's mean and std are those of its training.",
    )


def _classes(overall: Quality, images: int, num_classes: int, advice: _Advice) -> Finding | None:
    classes = overall.get("classes", math.nan)
    if images < PER_CLASS * num_classes or not classes < CLASSES.limit:
        return None
    return Finding(
        kind="classes",
        text=f"The teacher hardly ever sees {percent(1 - classes, 0)} of its classes in them; in sound sets it saw at "
        f"least {percent(CLASSES.sound, 0)}.",
        advice=f"{advice.longer} {advice.other}",
    )


def _student(overall: Quality, advice: _Advice) -> Finding | None:
    agreement = overall.get("student_agreement", math.nan)
    if advice.has_student and "student_agreement" not in overall:
        return Finding(
            kind="student",
            text="The generator's student has learned nothing: the set ended before it joined.",
            advice="Make more images (synthesis.num_shards), or let it join earlier (synthesis.method.student.warmup_batches).",
        )
    if not agreement < STUDENT.limit:
        return None
    return Finding(
        kind="student",
        text=f"The generator's student does not follow the teacher: on new images it names the same class in "
        f"{percent(agreement, 0)}; those of sound sets had at least {percent(STUDENT.sound, 0)}.",
        advice="Make more images (synthesis.num_shards), or let it take more steps after each batch "
        "(synthesis.method.student.steps).",
    )


def _figures(overall: Quality, first: Quality) -> str:
    """Return the measures that are there, each with its reference."""
    parts = [
        (overall.get("domain_gap"), lambda v: f"domain gap {number(v)} (at most {number(DOMAIN_GAP.limit)})"),
        (
            overall.get("diversity_relative"),
            lambda v: (
                f"distance within a class {percent(v, 0)} of any (at least {percent(RELATIVE_DISTANCE.limit, 0)})"
            ),
        ),
        (
            first.get("agreement"),
            lambda v: (
                f"the teacher sees the class asked for in {percent(v, 0)} (at least {percent(AGREEMENT.limit, 0)})"
            ),
        ),
        (
            overall.get("student_agreement"),
            lambda v: f"the student follows it in {percent(v, 0)} (at least {percent(STUDENT.limit, 0)})",
        ),
    ]
    return "; ".join(say(value) for value, say in parts if value is not None and math.isfinite(value))
