"""Evaluation: accuracy on real images. In a data-free run, only this stage reads them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator

from dfnas_ray import formatting
from dfnas_ray.config.experiment import evaluation_dataset
from dfnas_ray.datasets import ImageDataset
from dfnas_ray.datasets.base import EVALUATION, check_classes, open_dataset
from dfnas_ray.ops.cost import Cost
from dfnas_ray.storage.location import Count, JsonObject, Location, section
from dfnas_ray.synthesis.students import load_student
from dfnas_ray.teachers.base import Teacher
from dfnas_ray.training.confusion import write_confusion
from dfnas_ray.training.evaluation import guess_classes
from dfnas_ray.training.export import load_network
from dfnas_ray.workflow.events import EventLog
from dfnas_ray.workflow.retraining import Baseline, Retraining, RetrainingRecord
from dfnas_ray.workflow.session import Session
from dfnas_ray.workflow.stage import Outcome, Record, Stage
from dfnas_ray.workflow.synthesis import Synthesis

TEACHER = "teacher"
STUDENT = "student"


NOT_DATA_FREE = "not data-free"


class Role(NamedTuple):
    """The names of a network's role.

    Attributes:
        title: The name in tables.
        short: The name where there is little room.
    """

    title: str
    short: str


ROLES = {
    TEACHER: Role(TEACHER, TEACHER),
    STUDENT: Role("student, beside the images", STUDENT),
    **{s.name: Role(s.network, s.short) for s in (Retraining, Baseline)},
}
"""The names of each role, in the order of tables."""


class MeasuredNetwork(BaseModel):
    """One network on the real images.

    Attributes:
        correct: For each class, how many of its images the network classifies correctly; empty in records of older
            versions.
        data_free: Whether neither its search nor its training saw a real image. The teacher's own training does not
            count.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: str
    accuracy: float = Field(ge=0, le=1)
    params: Count
    macs: Count
    correct: tuple[Count, ...] = ()
    data_free: bool = True


class EvaluationRecord(Record):
    """The teacher and the networks on the real images.

    Attributes:
        dataset: The description of the dataset.
        images: The number of images.
        images_of_class: The number of images of each class; empty in records of older versions.
        networks: The networks by role: the teacher, students, and the names of the stages that trained the others.
        only_right: The number of images that only the searched network classifies correctly, and the number that only
            the random one does.
    """

    dataset: str
    images: Count = Field(gt=0)
    networks: dict[str, MeasuredNetwork] = Field(min_length=1)
    images_of_class: tuple[Count, ...] = ()
    only_right: tuple[Count, Count] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        classes = self.images_of_class
        for name, network in self.networks.items():
            right = network.correct
            if len(right) != len(classes) or any(some > all_ for some, all_ in zip(right, classes, strict=True)):
                raise ValueError(f"networks.{name}.correct does not fit images_of_class")
        return self

    @property
    def headline(self) -> str:
        """See `Record`."""
        return f"{len(self.networks)} networks"

    def detail(self, folder: Location) -> str:
        """See `Record`."""
        return formatting.plural(self.images, "real image")

    @property
    def in_order(self) -> dict[str, MeasuredNetwork]:
        """The networks by role, in the order of `ROLES`, others last."""
        names = [role for role in ROLES if role in self.networks]
        return {name: self.networks[name] for name in dict.fromkeys([*names, *self.networks])}


def check_dataset(dataset: ImageDataset, teacher: Teacher) -> None:
    """Compare the classes of real images with the teacher's, before hours are spent. No image is read.

    Raises:
        DatasetError: their numbers differ, or names that both have stand in another order; see `check_classes`.
    """
    check_classes(dataset, teacher.num_classes, EVALUATION, teacher.class_names)


class Evaluation(Stage[EvaluationRecord]):
    """The stage that measures the accuracies of the teacher and of trained networks."""

    name = "evaluation"
    title = "Evaluation"
    record = EvaluationRecord
    uses_code_of = ("evaluation",)

    def __init__(self, session: Session, networks: Sequence[Outcome[RetrainingRecord]]):
        super().__init__(session)
        self.students = Synthesis(session)
        self.num_students = self.students.num_students if session.config.uses_synthesis else 0
        self.networks = {outcome.stage: outcome.location for outcome in networks}

    @classmethod
    def is_asked_for(cls, experiment: JsonObject) -> bool:
        """See `Stage`."""
        return section(experiment, "evaluation").get("dataset") is not None

    @classmethod
    def made_from(cls, inputs: JsonObject) -> dict[str, str]:
        """See `Stage`."""
        return {name: folder for name, folder in section(inputs, "networks").items() if isinstance(folder, str)}

    @cached_property
    def dataset(self) -> ImageDataset:
        """The real images. Opening them reads no image."""
        return open_dataset(evaluation_dataset(self.session.config))

    def inputs(self) -> JsonObject:
        """See `Stage`."""
        beside = {self.students.name: self.students.location.name} if self.num_students else {}
        return {
            "dataset": evaluation_dataset(self.session.config).model_dump(mode="json"),
            "files": self.session.teacher.resizing.keyed(self.dataset.fingerprint),
            "teacher": self.session.teacher.fingerprint,
            "networks": {name: folder.name for name, folder in self.networks.items()} | beside,
        }

    def check(self) -> None:
        """Compare the dataset's classes with the teacher's."""
        check_dataset(self.dataset, self.session.teacher)

    def log(self, record: EvaluationRecord, events: EventLog) -> None:
        """See `Stage`: one point for each network."""
        with events.run() as run:
            for name, network in record.in_order.items():
                run.scalar(f"accuracy/{name}", network.accuracy, 0)

    def work(self) -> EvaluationRecord:
        """See `Stage`."""
        session, dataset = self.session, self.dataset
        teacher = session.teacher
        loaded: dict[str, torch.nn.Module] = {TEACHER: teacher.model}
        costs: dict[str, tuple[str, Cost]] = {TEACHER: (teacher.name, teacher.cost)}
        for number in range(self.num_students):
            name = f"{STUDENT}-{number + 1}" if number else STUDENT
            loaded[name] = load_student(self.students.location, number, teacher)
            costs[name] = (f"as {teacher.name}", teacher.cost)
        for name, folder in self.networks.items():
            architecture, loaded[name] = load_network(folder)
            costs[name] = (architecture.text, architecture.cost)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        with session.listener.task("Evaluating on real images", len(dataset), "image") as task:
            guesses = guess_classes(loaded, teacher, dataset, device, task.advance_to)
        confusion = {name: guesses.confusion(name) for name in loaded}
        write_confusion(self.location, confusion, teacher.class_names)
        per_class = next(iter(confusion.values())).sum(1)
        networks = {
            name: MeasuredNetwork(
                architecture=text,
                accuracy=int(np.trace(confusion[name])) / int(per_class.sum()),
                params=cost.params,
                macs=cost.macs,
                correct=tuple(map(int, np.diag(confusion[name]))),
                data_free=name not in self.networks or session.config.is_data_free,
            )
            for name, (text, cost) in costs.items()
        }
        return EvaluationRecord(
            dataset=dataset.description,
            images=len(dataset),
            networks=networks,
            images_of_class=tuple(map(int, per_class)),
            only_right=guesses.only_right(Retraining.name, Baseline.name) if Baseline.name in loaded else None,
        )
