"""The interface of an executor, which distributes work without knowing its purpose.

Both executors call the same functions of the core: `inline` in this process, `ray` with actors, Ray Tune and Ray Train.
On CPUs they leave the same artefacts, byte for byte. The exception is what depends on timing on Ray: which candidates
asynchronous halving stops.
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

if TYPE_CHECKING:  # every worker imports this module, so it imports only what all need
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
        stage: The stage whose cluster settings give a worker's resources and the attempts for an item.
        item: The name of an item in messages, such as "shard".
        prepare: Takes a worker's device, and returns the function that processes an item. It is sent to each worker and
            called there once, so what it holds must be `Shared` or small.
        advice: What to do if workers die, such as "give a worker more memory".
    """

    stage: ClusterStage
    item: str
    prepare: Callable[[torch.device], Callable[[Item], Result]]
    advice: str = "give a worker more memory"

    def cannot_follow(self, before: Item | None) -> str:
        """Return why an item cannot be done if the item ``before`` it failed."""
        return f"it continues from {self.item} {before}, which failed"


@dataclass(frozen=True)
class Crew:
    """The workers of a `Work`: their number, and callbacks.

    Attributes:
        size: The most workers at once; None: as many as the cluster has room for.
        on_started: Called whenever a worker has been placed and is ready.
        should_stop: Called every few seconds; the work ends early when it returns True.
    """

    size: int | None = None
    on_started: Callable[[], None] = lambda: None
    should_stop: Callable[[], bool] = lambda: False


class Executor(ABC):
    """Runs the work of one command. It is opened when it is first needed, and closed at the command's end.

    Args:
        cluster: The settings of the cluster.
        marker: A file that exists while the command is running. Every worker must see it.
        imports: Modules that workers must be able to import, by the setting that names them.
        verbose: Show the output of workers.
    """

    def __init__(
        self, cluster: ClusterConfig, marker: Location, imports: Mapping[str, str] | None = None, verbose: bool = False
    ):
        self.cluster, self.marker, self.imports, self.verbose = cluster, marker, dict(imports or {}), verbose
        self.tracking, self.name = TrackingConfig(), "experiment"

    def follow(self, tracking: TrackingConfig, name: str) -> None:
        """Report trials to trackers.

        Args:
            tracking: The settings of the trackers.
            name: The name of the experiment.
        """
        self.tracking, self.name = tracking, name

    @abstractmethod
    def open(self) -> None:
        """Make sure that work can begin. It may be called more than once.

        Raises:
            ClusterError: work cannot begin.
        """

    @abstractmethod
    def close(self) -> None:
        """Release what was opened."""

    def explain(self, error: Exception) -> DfnasError | None:
        """Return an error that a user can act on for an error of the cluster; None for any other error."""
        return None

    @abstractmethod
    def facts(self) -> dict[str, str | int | float]:
        """Return facts about where the work is done, for the report."""

    # Values

    @abstractmethod
    def share(self, value: T) -> Shared[T]:
        """Return a handle of a value with which all workers can get it."""

    @abstractmethod
    def compute(self, function: Callable[..., T], *arguments: Any) -> Shared[T]:
        """Compute a value on some worker and leave it there: this process never holds it.

        Args:
            function: A function of a module.
            *arguments: Its arguments. One that is `Shared` is replaced by its value.
        """

    @abstractmethod
    def show(self, task: Task) -> AbstractContextManager[Board]:
        """Return a board whose progress a bar shows while the block runs."""

    # Room

    @abstractmethod
    def check_fits(self, stage: ClusterStage, workers: int = 1) -> None:
        """Make sure that this number of a stage's workers can run at once.

        Raises:
            ClusterError: they cannot. The message says which settings ask for more than there is.
        """

    @abstractmethod
    def room_for(self, resources: WorkerResources) -> int:
        """Return how many workers of this size can run at once; at least one."""

    @abstractmethod
    def room_beside(self, resources: WorkerResources, others: WorkerResources, num_others: int) -> int:
        """Return how many workers of this size have room while ``num_others`` workers of another size run."""

    @abstractmethod
    def check_beside(self, stage: ClusterStage, other: ClusterStage, num_others: int, why: str) -> None:
        """Make sure that one worker of a stage has room while workers of another stage run.

        Args:
            stage: The stage of the worker.
            other: The stage of the other workers.
            num_others: The number of other workers.
            why: The setting that asks for both at once, with its value and an alternative.

        Raises:
            ClusterError: it has no room. The message says what each worker asks for.
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
        """Process all items on workers, and return the reason for each item that failed.

        An error that the user has to fix is final at once. Any other error is final after ``cluster.STAGE.attempts``
        attempts.

        Args:
            work: What is done with an item.
            items: The items, all different.
            on_done: Called in this process with each item and its result, in the order in which they arrive.
            crew: The workers.
            after: For an item, the item that must be done before it and comes before it in ``items``. If possible, the
                same worker does both, one after the other.

        Raises:
            ClusterError: workers keep dying, or none can start.
        """

    def map_all(
        self, work: Work[Item, Result], items: Sequence[Item], on_done: Callable[[Item, Result], object]
    ) -> None:
        """Process all items on workers, as `map` does, and raise an error if an item failed.

        Raises:
            DfnasError: an item failed. The message names it.
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
        """Run search trials to their end. Each leaves its result in its folder.

        While images are being made, a trial may end without a result. It is run again when all images exist.

        Raises:
            DfnasError: a trial failed for good. The message names it and says how to continue.
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

        Measurements that are in the trial's folder already are not repeated. `MultiFidelityConfig.rank` turns
        measurements into scores. No limit on MACs is applied.

        Raises:
            DfnasError: candidates failed for good. The message says how to continue.
        """

    @abstractmethod
    def train(
        self, job: RetrainingJob, teacher: Shared[Teacher], images: Shared[SyntheticImages], board: Board
    ) -> Retrained:
        """Train one network from its last checkpoint to its last epoch.

        Raises:
            DfnasError: the training failed for good. The message says how to continue.
        """

    @abstractmethod
    def run_sweep(self, job: SweepJob, record: SweepRecord, judge: Shared[Judge], board: Board) -> None:
        """Run a sweep's open trials. Their results are in the record and beside their images.

        Raises:
            DfnasError: a trial's process died too often. The message says how to continue.
        """
