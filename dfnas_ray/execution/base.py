"""The contract of an executor: how work is spread, with no idea of what it is for.

Both members call the same functions of the core: `inline` in this process, `ray` on actors, Ray Tune and Ray Train. On CPUs
they leave the same artefacts, byte for byte, but for what depends on timing on Ray: whom asynchronous halving stops.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch

from dfnas_ray.config.cluster import ClusterConfig, ClusterStage, WorkerResources
from dfnas_ray.config.tracking import TrackingConfig
from dfnas_ray.errors import DfnasError
from dfnas_ray.progress import Board, Task
from dfnas_ray.storage.shared import Shared

if TYPE_CHECKING:  # every worker imports this module: it brings what all of them need
    from dfnas_ray.algorithms.base import Measurement
    from dfnas_ray.algorithms.config import Trial
    from dfnas_ray.algorithms.trials import SearchJob
    from dfnas_ray.search_spaces.base import Genotype
    from dfnas_ray.storage.arrivals import ShardFolder
    from dfnas_ray.storage.location import Location
    from dfnas_ray.storage.shards import SyntheticImages
    from dfnas_ray.sweeps.measure import Judge
    from dfnas_ray.sweeps.record import SweepRecord
    from dfnas_ray.sweeps.trials import SweepJob
    from dfnas_ray.teachers.base import Teacher
    from dfnas_ray.training.retraining import Retrained, RetrainingJob

T = TypeVar("T")
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Work(Generic[Item, Result]):
    """Items that can be worked on one by one, in any order, by any worker.

    Attributes:
        stage: Whose settings say what a worker holds, and how often an item is tried.
        item: What users call an item, as in "shard".
        prepare: Given a worker's device, returns what is done with an item. It is called once in each worker, and sent
            there: what it needs is `Shared`, or small.
        advice: What helps when workers die, as in "give an actor more memory".
    """

    stage: ClusterStage
    item: str
    prepare: Callable[[torch.device], Callable[[Item], Result]]
    advice: str = "give a worker more memory"

    def cannot_follow(self, before: Item | None) -> str:
        """Return why an item cannot be done that goes on from another one."""
        return f"it goes on from {self.item} {before}, which could not be done"


@dataclass(frozen=True)
class Crew:
    """The workers of a `Work`, as whoever asks for them wants to have them.

    Attributes:
        size: At work at once; None: as many as have room.
        on_started: Called whenever a worker has got its place and is ready.
        should_stop: Asked every few seconds; the work ends early when it returns True.
    """

    size: int | None = None
    on_started: Callable[[], None] = lambda: None
    should_stop: Callable[[], bool] = lambda: False


class Executor(ABC):
    """Where the work of one command is done; opened when it is first needed, closed at its end.

    Args:
        cluster: The settings.
        marker: A file that is there while the command is at work: every worker must see it.
        imports: Modules that workers must be able to import, by the setting that names them.
        verbose: Show what workers say.
    """

    def __init__(
        self, cluster: ClusterConfig, marker: Location, imports: Mapping[str, str] | None = None, verbose: bool = False
    ):
        self.cluster, self.marker, self.imports, self.verbose = cluster, marker, dict(imports or {}), verbose
        self.tracking, self.name = TrackingConfig(), "experiment"

    def follow(self, tracking: TrackingConfig, name: str) -> None:
        """Let trackers know of trials.

        Args:
            tracking: Which.
            name: Of the experiment.
        """
        self.tracking, self.name = tracking, name

    @abstractmethod
    def open(self) -> None:
        """Make sure that work can begin. May be called again.

        Raises:
            ClusterError: it cannot.
        """

    @abstractmethod
    def close(self) -> None:
        """Leave everything as it was before."""

    def explain(self, error: Exception) -> DfnasError | None:
        """Return an error that a user can act on, for one that whatever does the work has raised; None if it was not that."""
        return None

    @abstractmethod
    def facts(self) -> dict[str, str | int | float]:
        """Return where the work is done, for the report."""

    # Values

    @abstractmethod
    def share(self, value: T) -> Shared[T]:
        """Put a value where all workers can get it."""

    @abstractmethod
    def compute(self, function: Callable[..., T], *arguments: Any) -> Shared[T]:
        """Compute a value on some worker and leave it there: this process never holds it.

        Args:
            function: Of a module, with its arguments; one that is `Shared` is replaced by its value.
        """

    @abstractmethod
    def show(self, task: Task) -> AbstractContextManager[Board]:
        """Return a board that a bar follows while the block runs."""

    # Room

    @abstractmethod
    def check_fits(self, stage: ClusterStage, workers: int = 1) -> None:
        """Make sure that so many workers of a stage can ever be at work at once.

        Raises:
            ClusterError: they cannot; says which settings ask for more than there is.
        """

    @abstractmethod
    def room_for(self, resources: WorkerResources) -> int:
        """Return how many workers of this size can be at work at once; at least one."""

    @abstractmethod
    def room_beside(self, resources: WorkerResources, others: WorkerResources, num_others: int) -> int:
        """Return how many workers of this size have room while ``num_others`` workers of another size are at work."""

    @abstractmethod
    def check_beside(self, stage: ClusterStage, other: ClusterStage, num_others: int, why: str) -> None:
        """Make sure that one worker of a stage has room while workers of another stage are at work.

        Args:
            stage: The worker's.
            other: The other workers'.
            num_others: Their number.
            why: The setting that asks for both at once, with its value and what else it could be.

        Raises:
            ClusterError: it has not; says what each asks for.
        """

    # Work

    @abstractmethod
    def map(
        self,
        work: Work[Item, Result],
        items: Sequence[Item],
        on_done: Callable[[Item, Result], object],
        crew: Crew | None = None,
        after: Mapping[Item, Item] | None = None,
    ) -> dict[Item, str]:
        """Have workers do all items; return the reason for each one that could not be done.

        An error that the user has to mend is final at once, any other one after ``cluster.STAGE.attempts`` tries.

        Args:
            work: What is done with an item.
            items: All different.
            on_done: Called in this process with each item and its result, in the order in which they come.
            crew: Who works.
            after: By item, another one that has to be done before it and comes before it in ``items``. The worker that has
                done the first goes on with the second, if it can.

        Raises:
            ClusterError: workers keep dying, or none can start.
        """

    def map_all(
        self, work: Work[Item, Result], items: Sequence[Item], on_done: Callable[[Item, Result], object]
    ) -> None:
        """Do the same, and take the failure of one item for that of the whole.

        Raises:
            DfnasError: an item failed; names it.
        """
        failed = self.map(work, items, on_done)
        for item, reason in failed.items():
            raise DfnasError(
                f"The {work.item} {item} failed: {reason} What is finished is kept; run the same command again to go on."
            )

    @abstractmethod
    def run_trials(
        self,
        job: SearchJob,
        trials: Iterable[Trial],
        teacher: Shared[Teacher],
        images: Shared[SyntheticImages] | ShardFolder,
        board: Board,
    ) -> None:
        """Run search trials to their results, which are then in their folders.

        On images that are being made, a trial may end without a result: it is run again when all are there.

        Raises:
            DfnasError: a trial failed for good; names it, and says how to go on.
        """

    @abstractmethod
    def measure_population(
        self,
        job: SearchJob,
        trial: Trial,
        genotypes: Sequence[Genotype],
        teacher: Shared[Teacher],
        images: Shared[SyntheticImages],
        board: Board,
    ) -> list[Measurement]:
        """Train given architectures as one population; return the epochs reached and the score of each.

        What was measured before in the trial's folder is not done again. `MultiFidelityConfig.rank` makes scores of the
        measurements. No limit is applied.

        Raises:
            DfnasError: candidates failed for good; says how to go on.
        """

    @abstractmethod
    def train(
        self, job: RetrainingJob, teacher: Shared[Teacher], images: Shared[SyntheticImages], board: Board
    ) -> Retrained:
        """Train one network from its last checkpoint to its last epoch.

        Raises:
            DfnasError: it failed for good; says how to go on.
        """

    @abstractmethod
    def run_sweep(self, job: SweepJob, record: SweepRecord, judge: Shared[Judge], board: Board) -> None:
        """Run the trials of a sweep to its number; their results are in the record and beside their images.

        Raises:
            DfnasError: a trial's process died again and again; says how to go on.
        """
