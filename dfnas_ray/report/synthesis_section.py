"""The sections of the synthetic images: samples, quality, and loss curves of their synthesis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from dfnas_ray.report import figures
from dfnas_ray.report.artefacts import Artefacts
from dfnas_ray.report.samples import Samples, read_curves, read_samples
from dfnas_ray.storage.location import JsonObject
from dfnas_ray.storage.manifest import Manifest
from dfnas_ray.synthesis.config import SynthesisConfig
from dfnas_ray.synthesis.quality import Quality, QualityReport
from dfnas_ray.synthesis.verdict import Verdict
from dfnas_ray.workflow.synthesis import Synthesis


class Measure(NamedTuple):
    """How one measure of quality is shown.

    Attributes:
        name: Its name in records.
        title: Its title in the table.
        kind: ``percent`` or ``number``.
        meaning: Its explanation.
    """

    name: str
    title: str
    kind: str
    meaning: str


QUALITY_MEASURES = (
    Measure(
        "confidence", "Confidence", "percent",
        "Semantics: mean of the teacher's highest probability. Higher is better.",
    ),
    Measure(
        "entropy", "Entropy", "number",
        "Semantics: mean entropy of the teacher's probabilities, in nats. Lower is surer.",
    ),
    Measure(
        "agreement", "Agreement", "percent",
        "Semantics: images that the teacher puts into the class asked for in round 0. Higher is better; "
        "later rounds ask for soft labels and may drift.",
    ),
    Measure(
        "classes", "Classes", "percent",
        "Semantics: classes that the teacher sees in at least a third of their share. Higher is better.",
    ),
    Measure(
        "diversity_distance", "Distance", "number",
        "Diversity: mean cosine distance of the teacher's features within a class. Higher is better.",
    ),
    Measure(
        "diversity_relative", "Relative distance", "percent",
        "Diversity: the same as a share of the distance of any two images. Low values mean copies.",
    ),
    Measure(
        "diversity_duplicates", "Duplicates", "percent",
        "Diversity: images with a neighbour of cosine similarity above 0.999 in their class. Lower is better.",
    ),
    Measure(
        "domain_gap", "Domain gap", "number",
        "Distance of the images' BatchNorm statistics from the teacher's running statistics. Lower is better.",
    ),
    Measure(
        "student_agreement", "Student", "percent",
        "New images on which the generator's student named the teacher's class, in its last batches. Higher is better.",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class SynthesisSection:
    """The values that the template shows of the synthetic images.

    Attributes:
        measures: The measures for which there are figures.
        quality: Columns of the table: title and figures.
        boundaries: Steps after which the resolution rises.
        shards_averaged: Number of shards that the curves are averaged over.
        problems: Errors about shards that cannot be read.
        verdict: The verdict on the images; None in runs of older versions.
    """

    samples: Samples | None
    measures: list[Measure]
    quality: list[tuple[str, Quality]]
    panels: figures.Panels
    boundaries: list[int]
    shards_averaged: int
    num_shards: int
    problems: list[str]
    verdict: Verdict | None


def synthesis_section(artefacts: Artefacts) -> SynthesisSection | None:
    """Return the section of the synthetic images, or None if they are not finished."""
    found = artefacts[Synthesis]
    manifest = found.read(Manifest.find)
    if found.folder is None or manifest is None:
        return None
    facts, config = read_curves(found.folder, manifest), _settings(found.inputs)
    steps = [] if config is None else list(config.method.scale_steps)
    columns = _columns(found.read(QualityReport.find))
    return SynthesisSection(
        samples=read_samples(
            found.folder, manifest, facts.problems, config is not None and config.has_chains, artefacts.class_names
        ),
        measures=[measure for measure in QUALITY_MEASURES if any(measure.name in values for _, values in columns)],
        quality=columns,
        panels=figures.synthesis_panels(facts.curves, steps),
        boundaries=_boundaries(steps),
        shards_averaged=facts.shards_averaged,
        num_shards=len(manifest.shards),
        problems=facts.problems,
        verdict=None if found.record is None else found.record.verdict,
    )


def _settings(inputs: JsonObject) -> SynthesisConfig | None:
    """Return the settings that a stage recorded; None if they are of another version."""
    try:
        return SynthesisConfig.model_validate(inputs["synthesis"])
    except (KeyError, ValueError):
        return None


def _columns(quality: QualityReport | None) -> list[tuple[str, Quality]]:
    if quality is None:
        return []
    columns = [(f"round {number}", values) for number, values in sorted(quality.rounds.items())]
    if len(columns) == 1:  # measures of the whole set belong to this round
        return [(columns[0][0], {**columns[0][1], **quality.overall})]
    return [*columns, ("all", quality.overall)] if quality.overall else columns


def _boundaries(steps: Sequence[int]) -> list[int]:
    return list(accumulate(steps))[:-1]
