"""The contract of a stage: what it depends on, what can be checked early, its work, and the record that it leaves.

A key follows from the inputs, so nothing stale is ever used; the record is written last: a stage that has one is finished.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Generic, Protocol, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from dfnas_ray.config.cluster import ClusterStage
from dfnas_ray.errors import AlteredError
from dfnas_ray.execution.base import Executor
from dfnas_ray.storage.location import JsonObject, Location, Seconds, json_bytes, section
from dfnas_ray.storage.run_dir import StageDir
from dfnas_ray.storage.sealed import remove_altered, seal
from dfnas_ray.storage.shards import SyntheticImages
from dfnas_ray.storage.shared import Shared
from dfnas_ray.workflow.events import FOLDER, EventLog
from dfnas_ray.workflow.session import Session

Moment: TypeAlias = Annotated[float, Field(ge=0, lt=2e11)]
"""Unix time of a record, in years of four digits."""


class Record(BaseModel):
    """What a finished stage says of itself: ``done.json``.

    Attributes:
        seconds: Of work.
        finished_at: Unix time.
        machine: What it ran on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    seconds: Seconds = 0.0
    finished_at: Moment | None = None
    machine: dict[str, str | int | float | None] = {}

    @property
    @abstractmethod
    def headline(self) -> str:
        """What was made, in the line with which a command ends."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader should know of the result before it is used, in sentences."""
        return ()

    @abstractmethod
    def detail(self, folder: Location) -> str:
        """Return how much work it was, for a table of times.

        Args:
            folder: Of the stage.

        Raises:
            StorageError: a file there is of another version, or was altered.
        """


def of_other_images(images: str) -> str:
    """Return what a headline adds where something else than the synthetic images was looked at."""
    return "" if images == "synthetic" else f", on images: {images}"


R = TypeVar("R", bound=Record)
R_co = TypeVar("R_co", bound=Record, covariant=True)


@dataclass(frozen=True)
class Outcome(Generic[R_co]):
    """A finished stage.

    Attributes:
        stage: Its name.
        location: Its folder.
        record: What it says of itself.
        reused: Whether it was finished before this command.
    """

    stage: str
    location: Location
    record: R_co
    reused: bool

    @property
    def summary(self) -> JsonObject:
        """The record as JSON."""
        return self.record.model_dump(mode="json", exclude_none=True)


class ImageSource(Protocol):
    """Where the images of a stage come from."""

    @property
    def name(self) -> str:
        """Under which a stage's inputs have its key."""
        ...

    @property
    def key(self) -> str:
        """Everything that the images depend on, as a fingerprint."""
        ...

    @property
    def canvas_size(self) -> tuple[int, int]:
        """Height and width of a stored image; what the teacher sees of it is the centre."""
        ...

    def images(self, executor: Executor) -> Shared[SyntheticImages]:
        """Return the images, which are all there, where the work is done."""
        ...


class Stage(ABC, Generic[R]):
    """One step of the workflow, in the run directory of a command.

    Args:
        session: The command.
        is_own: Whether it belongs to the experiment as it is, and so is what reports show.
    """

    name: ClassVar[str]
    """Names its folder."""

    title: ClassVar[str]
    """What reports call it."""

    record: ClassVar[type[Record]]
    """The class of its record."""

    workers: ClassVar[ClusterStage | None] = None
    """Which settings of the cluster its workers have; None if it has no workers."""

    shown_unasked: ClassVar[bool] = True
    """Whether reports show it, if it is finished, where the experiment does not ask for it."""

    def __init__(self, session: Session, is_own: bool = True):
        self.session, self.is_own = session, is_own and session.is_whole
        self._dir: StageDir | None = None
        self._began: float | None = None
        self._is_checked = False  # against its digests

    # What each stage says of itself

    @abstractmethod
    def inputs(self) -> JsonObject:
        """Return everything that its result depends on: a changed entry is another stage."""

    def check(self) -> None:
        """Find what would fail later, before anything is written, perhaps before hours are spent on other stages.

        Raises:
            DfnasError: something would.
        """

    @abstractmethod
    def work(self) -> R:
        """Do it, and return the record; the time is filled in by `finish`."""

    def num_workers(self) -> int:
        """Return how many of its workers must be at work at once."""
        return 1

    def log(self, record: R, events: EventLog) -> None:
        """Write for TensorBoard what the finished stage showed.

        Args:
            record: Of the stage, whose folder is complete.
            events: Where.
        """

    # What each stage says of what a run directory recorded

    @classmethod
    def is_asked_for(cls, experiment: JsonObject) -> bool:
        """Return whether something is missing without it, by an experiment.yaml, perhaps of another version."""
        return True

    @classmethod
    def made_from(cls, inputs: JsonObject) -> dict[str, str]:
        """Return the keys of the stages that it was made from, or their beginnings, by names."""
        return {name: key for name, key in section(inputs, "upstream").items() if isinstance(key, str)}

    # What all have in common

    @property
    def dir(self) -> StageDir:
        """Its folder and its key."""
        if self._dir is None:
            self._dir = self.session.run_dir.stage(self.name, self.inputs())
        return self._dir

    @property
    def key(self) -> str:
        """Everything that its result depends on, as a fingerprint."""
        return self.dir.key

    @property
    def location(self) -> Location:
        """Its folder."""
        return self.dir.location

    @property
    def is_done(self) -> bool:
        """Whether it is finished. A record that cannot be read is named, and does not count."""
        return self.read() is not None

    def read(self) -> R | None:
        """Return the record of the finished stage."""
        if not self.dir.is_done:
            return None
        try:
            record: Any = self.dir.done_file.read_model(self.record)
        except AlteredError as error:
            self.session.listener.say(f"{self.name}: is made anew. {error}")
            self.dir.reopen()
            return None
        if not self._is_checked and remove_altered(self.location, self.session.listener.say):
            self.dir.reopen()
            return None
        self._is_checked = True
        return record

    def check_fits(self) -> None:
        """Make sure that the cluster can be reached, and ever has room for its workers.

        Raises:
            ClusterError: it has not.
        """
        if self.workers is not None:
            self.session.executor.check_fits(self.workers, self.num_workers())

    def finish(self) -> Outcome[R]:
        """Return the outcome, after doing the work unless that is done."""
        known: Outcome[R] | None = self.session.outcomes.get(str(self.location))
        if known is not None:
            return known
        record = self.read()
        if record is not None:
            return self._remember(record, True)
        self.check_fits()
        self.begin()
        return self.complete(self.work())

    def begin(self) -> None:
        """Record that work begins, and say why, unless this command did so before."""
        if self._began is not None:
            return
        changes = self.dir.changes() if self.is_own else []
        if self.dir.is_started:
            self.session.listener.say(f"{self.name}: goes on where an earlier command stopped.")
        elif changes:
            more = " ..." if changes[3:] else ""
            self.session.listener.say(f"{self.name}: again, because {'; '.join(changes[:3])}{more}")
        self.dir.begin()
        if self.is_own:
            self.session.note(self.dir)
            self.session.record()
        self._began = time.monotonic()

    @property
    def began(self) -> float:
        """When this command began it, on the monotonic clock."""
        assert self._began is not None, "a stage is begun before it is done"
        return self._began

    def complete(self, record: R) -> Outcome[R]:
        """Record that the work is done.

        Args:
            record: Without the time, unless the stage knows better how long it took.
        """
        self.session.run_dir.check_held(self.location)
        seconds = record.seconds or round(time.monotonic() - self.began, 2)
        facts = {"seconds": seconds, "finished_at": time.time(), "machine": self.session.machine()}
        record = record.model_copy(update=facts)
        written = json_bytes(record, exclude_none=True)
        seal(self.location, written)
        self.dir.done_file.write_bytes(written)
        if self.is_own:
            self.log(record, EventLog(self.session.run_dir.location / FOLDER / f"{self.name}-{self.location.name}"))
        return self._remember(record, False)

    def _remember(self, record: R, reused: bool) -> Outcome[R]:
        outcome = Outcome(self.name, self.location, record, reused)
        if self.is_own:
            self.session.note(self.dir)
        self.session.outcomes[str(self.location)] = outcome
        return outcome
