"""Render the report page from what the run directory holds."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from dfnas_ray.formatting import capitalised
from dfnas_ray.report import figures
from dfnas_ray.report.architecture import rebuild_space
from dfnas_ray.report.artefacts import Artefacts, read_artefacts
from dfnas_ray.report.benchmark_section import BenchmarkSection, benchmark_section
from dfnas_ray.report.classes_section import ClassesSection, classes_section
from dfnas_ray.report.comparison_section import ComparisonSection, comparison_section
from dfnas_ray.report.cost_section import CostSection, cost_section
from dfnas_ray.report.network_section import NetworkSection, network_section
from dfnas_ray.report.results import Comparison, compare, verdict
from dfnas_ray.report.search_section import (
    ArchitectureSection,
    SearchSection,
    architecture_section,
    network_roles,
    search_section,
)
from dfnas_ray.report.synthesis_section import SynthesisSection, synthesis_section
from dfnas_ray.report.templates import source, template
from dfnas_ray.report.tiles import Tile, accuracy_tiles, other_tiles
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.run_dir import RunDir
from dfnas_ray.storage.uri import append_to_path
from dfnas_ray.teachers.base import ImageShape
from dfnas_ray.training.retraining import EpochFigures
from dfnas_ray.version import __version__
from dfnas_ray.workflow.benchmark import Benchmark
from dfnas_ray.workflow.comparison import VariantComparison
from dfnas_ray.workflow.evaluation import TEACHER, Evaluation
from dfnas_ray.workflow.retraining import Baseline, History, Retraining, RetrainingRecord
from dfnas_ray.workflow.search import Search, SearchRecord
from dfnas_ray.workflow.synthesis import Synthesis, SynthesisRecord


@dataclass(frozen=True)
class TeacherLine:
    """The teacher in the first sentence of the page."""

    name: str
    num_classes: int | None
    image_shape: ImageShape | None


@dataclass(frozen=True)
class MissingStage:
    """A stage that the page does not show, and why."""

    title: str
    why: str


@dataclass(frozen=True)
class NetworkRow:
    """The figures of a training's last epoch."""

    title: str
    epochs: int
    loss: float | None
    validation_loss: float | None
    validation_agreement: float | None


@dataclass(frozen=True)
class RetrainingSection:
    """The values that the template shows of the trainings."""

    panels: figures.Panels
    rows: list[NetworkRow]


@dataclass(frozen=True)
class Page:
    """All values that the template shows, except the style.

    Attributes:
        changed: Titles of the stages for which experiment.yaml has other settings now.
        remarks: What a reader should know before using the results.
        unreadable: Errors about files that were altered, or are of another version.
        keys: Titles and keys of the stages shown.
    """

    name: str
    teacher: TeacherLine
    version: str
    tiles: Sequence[Sequence[Tile]]
    missing: Sequence[MissingStage]
    changed: Sequence[str]
    comparison: Comparison | None
    accuracies: figures.Panels | None
    classes: ClassesSection | None
    network: NetworkSection | None
    verdict: str
    remarks: Sequence[str]
    synthesis: SynthesisSection | None
    search: SearchSection | None
    architecture: ArchitectureSection | None
    retraining: RetrainingSection | None
    benchmark: BenchmarkSection | None
    variants: ComparisonSection | None
    cost: CostSection
    config_text: str
    keys: Sequence[tuple[str, str]]
    commands: dict[str, str]
    unreadable: Sequence[str]
    search_images: str
    training_images: str
    is_data_free: bool


def write_report(run_dir: RunDir) -> Location:
    """Write ``report.html``, a self-contained file, from what the run directory holds, and return its location.

    Raises:
        StorageError: no stage is finished yet, or the directory cannot be read or written.
    """
    artefacts = read_artefacts(run_dir)
    target = run_dir.location / "report.html"
    target.write_bytes(render(artefacts).encode())
    return target


def render(artefacts: Artefacts) -> str:
    """Return the page as HTML."""
    return template("report.html.j2").render(style=Markup(source("style.css")), **vars(_page(artefacts)))


def is_data_free(artefacts: Artefacts) -> bool:
    """Return whether neither the search nor the retraining saw a real image."""
    records = (artefacts[Search].record, artefacts[Retraining].record)
    return all(record is None or record.data_free for record in records)


def _images(record: SearchRecord | RetrainingRecord | None) -> str:
    return "them" if record is None or record.images == "synthetic" else f"images of another source, {record.images}"


def _page(artefacts: Artefacts) -> Page:
    space = rebuild_space(artefacts)
    evaluation = artefacts[Evaluation].record
    roles = network_roles(artefacts)
    comparison = compare(evaluation, roles) if evaluation else None
    return Page(
        name=str(artefacts.config.get("name") or artefacts.run_dir.location.name),
        teacher=_teacher(artefacts, comparison),
        version=__version__,
        tiles=[accuracy_tiles(comparison), other_tiles(artefacts, comparison)],
        missing=_missing(artefacts),
        changed=[stage.title for stage, _, found in artefacts.finished if found.changed],
        comparison=comparison,
        accuracies=_accuracies(comparison),
        classes=classes_section(artefacts, roles),
        network=network_section(artefacts),
        verdict=verdict(comparison) if comparison else "",
        remarks=remarks(artefacts),
        synthesis=synthesis_section(artefacts),
        search=search_section(artefacts, space),
        architecture=architecture_section(artefacts, space),
        retraining=_retraining(artefacts),
        benchmark=benchmark_section(artefacts),
        variants=comparison_section(artefacts),
        cost=cost_section(artefacts),
        config_text=artefacts.config_text,
        keys=_keys(artefacts),
        commands=commands(artefacts),
        search_images=_images(artefacts[Search].record),
        training_images=_images(artefacts[Retraining].record),
        is_data_free=is_data_free(artefacts),
        unreadable=artefacts.problems.texts,  # last: every reading above may add to it
    )


def _accuracies(comparison: Comparison | None) -> figures.Panels | None:
    rows = comparison.rows if comparison else []
    points = [figures.AccuracyPoint(row.title, row.macs, row.accuracy, row.low, row.high) for row in rows]
    return figures.accuracy_panel(points) if len(points) > 1 else None


def _teacher(artefacts: Artefacts, comparison: Comparison | None) -> TeacherLine:
    synthesis, row = artefacts[Synthesis].record, comparison.row(TEACHER) if comparison else None
    if synthesis is not None:
        teacher = synthesis.teacher
        return TeacherLine(teacher.name, teacher.num_classes, teacher.image_shape)
    spec = artefacts.config.get("teacher")
    name = (spec.get("name") or spec.get("kind")) if isinstance(spec, dict) else spec
    return TeacherLine(row.architecture if row else str(name or "teacher"), None, None)


def _missing(artefacts: Artefacts) -> list[MissingStage]:
    compared = artefacts[Benchmark].finished or artefacts[VariantComparison].finished
    if compared and artefacts[Search].status == "missing":
        return []  # only rankings, or a comparison, were asked for
    why = {"missing": "not finished yet", "outdated": "outdated: made from what a later command replaced"}
    missing = [
        MissingStage(stage.title, why[found.status]) for stage, found in artefacts.stages.items() if found.status in why
    ]
    if artefacts[Evaluation].status == "off":
        missing.append(MissingStage(Evaluation.title, "the experiment names no real images"))
    return missing


def remarks(artefacts: Artefacts) -> list[str]:
    """Return sentences about weaknesses of the images and the networks; empty if there are none."""
    found: list[str] = []
    for _, record, _ in artefacts.finished:
        verdict_of_images = record.verdict if isinstance(record, SynthesisRecord) else None
        is_sound = isinstance(record, SynthesisRecord) and not (verdict_of_images and verdict_of_images.findings)
        found += [] if is_sound else record.remarks
    return found


def commands(artefacts: Artefacts, place: str | None = None) -> dict[str, str]:
    """Return the command lines that continue, evaluate, export, and reproduce the run in another folder.

    Args:
        artefacts: What the run directory holds.
        place: The run directory as the commands name it; by default its full path.
    """
    place = place or artefacts.run_dir.location.address
    file = shlex.quote(append_to_path(place, "/experiment.yaml"))
    same = f"{file} --run-dir {shlex.quote(place)}"
    return {
        "continue": f"dfnas run {same}",
        "evaluate": f"dfnas evaluate {same} --set 'evaluation.dataset={{kind: image_folder, path: PATH}}'",
        "export": f"dfnas export {same}",
        "reproduce": f"dfnas run {file} --run-dir {shlex.quote(append_to_path(place, '-again'))}",
    }


def _retraining(artefacts: Artefacts) -> RetrainingSection | None:
    roles = network_roles(artefacts)
    histories: dict[str, Sequence[EpochFigures]] = {}
    for stage in (Retraining, Baseline):
        if history := artefacts[stage].read(History.read):
            histories[capitalised(roles[stage.name].title)] = history
    if not histories:
        return None
    rows = [
        NetworkRow(title, len(history), *(history[-1].get(name) for name in _SHOWN))
        for title, history in histories.items()
    ]
    return RetrainingSection(figures.retraining_panels(histories), rows)


_SHOWN = ("loss", "validation_loss", "validation_agreement")


def _keys(artefacts: Artefacts) -> list[tuple[str, str]]:
    keys = [
        (stage.title, f"{stage.name}/{found.folder.name}")
        for stage, _, found in artefacts.finished
        if found.folder is not None
    ]
    for found in (artefacts[Synthesis], artefacts[Evaluation]):
        teacher = found.inputs.get("teacher")
        if found.finished and teacher:
            return [("Teacher, sha256", str(teacher)), *keys]
    return keys
