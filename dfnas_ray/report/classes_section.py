"""The section of single classes: the accuracy of each, and the most frequent mistakes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dfnas_ray.formatting import capitalised
from dfnas_ray.report.artefacts import Artefacts
from dfnas_ray.teachers.class_names import name_of
from dfnas_ray.training.confusion import worst_mistakes
from dfnas_ray.workflow.evaluation import TEACHER, Evaluation, EvaluationRecord, Role
from dfnas_ray.workflow.retraining import Retraining

_ALL = 20  # up to so many classes, all are shown
_FEWEST, _MISTAKES = 12, 8  # number of worst classes shown otherwise, and of mistakes


@dataclass(frozen=True)
class ClassRow:
    """One class: its name, its number of images, and the accuracy of each network on them."""

    label: int
    name: str
    images: int
    accuracies: list[float]


@dataclass(frozen=True)
class NamedMistake:
    """Images of one class that the network assigns to another one."""

    label: str
    named: str
    images: int
    share: float


@dataclass(frozen=True)
class ClassesSection:
    """The values that the template shows of single classes.

    Attributes:
        networks: Titles of the columns.
        main: The column of the network that the report is about.
        rows: The classes shown.
        left_out: Number of classes with images that are not shown: the network is better at them.
        empty: Number of classes without an image.
        of: The name of the network whose mistakes are listed.
        mistakes: The most frequent mistakes.
    """

    networks: list[str]
    main: int
    rows: list[ClassRow]
    left_out: int
    empty: int
    of: str
    mistakes: list[NamedMistake]


def classes_section(artefacts: Artefacts, roles: Mapping[str, Role]) -> ClassesSection | None:
    """Return the section of single classes, or None if no evaluation counted them."""
    found = artefacts[Evaluation]
    record = found.record
    if record is None or not sum(record.images_of_class):
        return None
    networks, names = list(record.in_order), artefacts.class_names
    main = Retraining.name if Retraining.name in networks else networks[0]
    rows = class_rows(record, main, names)
    shown = sorted(rows, key=lambda row: row.label) if len(rows) <= _ALL else rows[:_FEWEST]
    mistakes = found.read(lambda folder: worst_mistakes(folder, main, _MISTAKES)) or []
    titles = {name: capitalised(roles[name].short if name in roles else name) for name in networks}
    return ClassesSection(
        networks=[titles[name] for name in networks],
        main=networks.index(main),
        rows=shown,
        left_out=len(rows) - len(shown),
        empty=len(record.images_of_class) - len(rows),
        of=titles[main].lower() if main != TEACHER else TEACHER,
        mistakes=[
            NamedMistake(
                name_of(one.label, names), name_of(one.named, names), one.images,
                one.images / max(1, record.images_of_class[one.label]),
            )
            for one in mistakes
            if 0 <= one.label < len(record.images_of_class)
        ],
    )  # fmt: skip


def class_rows(record: EvaluationRecord, main: str, names: tuple[str, ...] | None) -> list[ClassRow]:
    """Return the classes that have images, starting with those at which the main network is worst."""
    networks = list(record.in_order)
    counted = [(label, images) for label, images in enumerate(record.images_of_class) if images]
    rows = [
        ClassRow(
            label,
            name_of(label, names),
            images,
            [record.networks[name].correct[label] / images for name in networks],
        )
        for label, images in counted
    ]
    place = networks.index(main)
    return sorted(rows, key=lambda row: row.accuracies[place])
