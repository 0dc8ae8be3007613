"""The interface of a stage: its inputs, early checks, its work, and the record that it leaves.

A stage's key follows from its inputs, so stale results are never used. The record is written last: a stage that has one
is finished.
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
"""A Unix time in a record, limited to years of four digits."""


class Record(BaseModel):
    """The record of a finished stage: ``done.json``.

    Attributes:
        seconds: The seconds of work.
        finished_at: The Unix time of its end.
        machine: Facts about the machine that it ran on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    seconds: Seconds = 0.0
    finished_at: Moment | None = None
    machine: dict[str, str | int | float | None] = {}

    @property
    @abstractmethod
    def headline(self) -> str:
        """The result, for the line with which a command ends."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """Sentences that a reader should know before using the result."""
        return ()

    @abstractmethod
    def detail(self, folder: Location) -> str:
        """Return the amount of work, for a table of times.

        Args:
            folder: The folder of the stage.

        Raises:
            StorageError: a file there is of another version, or was altered.
        """


def of_other_images(images: str) -> str:
    """Return an addition to a headline if other images than the synthetic ones were used."""
    return "" if images == "synthetic" else f", on images: {images}"


R = TypeVar("R", bound=Record)
R_co = TypeVar("R_co", bound=Record, covariant=True)


@dataclass(frozen=True)
class Outcome(Generic[R_co]):
    """A finished stage.

    Attributes:
        stage: The name of the stage.
        location: The folder of the stage.
        record: The record of the stage.
        reused: Whether the stage was finished before this command.
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
    """The source of a stage's images."""

    @property
    def name(self) -> str:
        """The name under which a stage's inputs hold the source's key."""
        ...

    @property
    def key(self) -> str:
        """The fingerprint of everything that the images depend on."""
        ...

    @property
    def canvas_size(self) -> tuple[int, int]:
        """Height and width of a stored image. The teacher sees the centre of it."""
        ...

    def images(self, executor: Executor) -> Shared[SyntheticImages]:
        """Return a handle of the images for the executor's workers. All images must exist."""
        ...


class Stage(ABC, Generic[R]):
    """One step of the workflow, in the run directory of a command.

    Args:
        session: The session of the command.
        is_own: Whether it belongs to the experiment as it was given, so that reports show it.
    """

    name: ClassVar[str]
    """The name of the stage and of its folder."""

    title: ClassVar[str]
    """The title in reports."""

    record: ClassVar[type[Record]]
    """The class of its record."""

    workers: ClassVar[ClusterStage | None] = None
    """The section of the cluster settings for its workers; None if it has no workers."""

    uses_code_of: ClassVar[tuple[str, ...]] = ()
    """Settings whose members may be the user's own code, on which its result depends."""

    shown_unasked: ClassVar[bool] = True
    """Whether reports show the finished stage even if the experiment does not ask for it."""

    has_own_command: ClassVar[bool] = False
    """Whether it is a command of its own, so that an experiment never asks for it."""

    def __init__(self, session: Session, is_own: bool = True):
        self.session, self.is_own = session, is_own and session.is_whole
        self._dir: StageDir | None = None
        self._began: float | None = None
        self._is_checked = False  # against its digests

    # What each stage defines

    @abstractmethod
    def inputs(self) -> JsonObject:
        """Return everything that its result depends on. A changed entry gives another key."""

    def check(self) -> None:
        """Find errors that would occur later, before anything is written and hours are spent on other stages.

        Raises:
            DfnasError: the stage would fail.
        """

    @abstractmethod
    def work(self) -> R:
        """Do the work, and return the record. `finish` fills in the time."""

    def num_workers(self) -> int:
        """Return how many of its workers must run at once."""
        return 1

    def log(self, record: R, events: EventLog) -> None:
        """Write the curves of the finished stage for TensorBoard.

        Args:
            record: The record of the stage. Its folder is complete.
            events: The event files of the stage.
        """

    # How each stage reads what a run directory has recorded

    @classmethod
    def is_asked_for(cls, experiment: JsonObject) -> bool:
        """Return whether an experiment.yaml, perhaps of another version, asks for this stage."""
        return not cls.has_own_command

    @classmethod
    def made_from(cls, inputs: JsonObject) -> dict[str, str]:
        """Return the keys, or their beginnings, of the stages that it was made from, by name."""
        return {name: key for name, key in section(inputs, "upstream").items() if isinstance(key, str)}

    # What all stages have in common

    @property
    def dir(self) -> StageDir:
        """The stage's folder and key."""
        if self._dir is None:
            self._dir = self.session.run_dir.stage(self.name, self.inputs() | self.session.own_code(*self.uses_code_of))
        return self._dir

    @property
    def key(self) -> str:
        """The fingerprint of everything that its result depends on."""
        return self.dir.key

    @property
    def location(self) -> Location:
        """The folder of the stage."""
        return self.dir.location

    @property
    def is_done(self) -> bool:
        """Whether the stage is finished. A record that cannot be read does not count, and a message names it."""
        return self.read() is not None

    def read(self) -> R | None:
        """Return the record of the stage; None if it is not finished."""
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
        """Make sure that the cluster can be reached, and that it can hold the stage's workers.

        Raises:
            ClusterError: it cannot.
        """
        if self.workers is not None:
            self.session.executor.check_fits(self.workers, self.num_workers())

    def finish(self) -> Outcome[R]:
        """Return the outcome. Do the work first, unless it is done."""
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
        """Record that work begins, and tell the user why; do nothing if this command has done so before."""
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
            record: The record, without the time unless the stage knows it better.
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
