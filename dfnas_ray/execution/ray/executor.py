"""The executor on a Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.exceptions import RaySystemError, RpcError

from dfnas_ray.algorithms.base import Measurement
from dfnas_ray.algorithms.config import Trial
from dfnas_ray.algorithms.trials import SearchJob
from dfnas_ray.config.cluster import ClusterConfig, ClusterStage, WorkerResources
from dfnas_ray.errors import ClusterError, DfnasError
from dfnas_ray.execution.base import Crew, Executor, Item, Result, T, Work
from dfnas_ray.execution.machine import is_submitted
from dfnas_ray.execution.ray.board import ProgressBoard
from dfnas_ray.execution.ray.cluster import ClusterSize
from dfnas_ray.execution.ray.connection import Connection, worker_device
from dfnas_ray.execution.ray.errors import last_line
from dfnas_ray.execution.ray.imports import check_imports
from dfnas_ray.execution.ray.pool import Pool, actor_maker
from dfnas_ray.execution.ray.sending import check_can_be_sent, put
from dfnas_ray.execution.ray.shared_storage import SharedStorage
from dfnas_ray.execution.ray.stored import Stored
from dfnas_ray.execution.ray.trackers import callbacks, check_installed
from dfnas_ray.execution.ray.waiting import waiting_is_told
from dfnas_ray.progress import Board, Task
from dfnas_ray.search_spaces.base import Genotype
from dfnas_ray.storage.arrivals import ShardFolder
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.shards import SyntheticImages
from dfnas_ray.storage.shared import Shared
from dfnas_ray.sweeps.measure import Judge
from dfnas_ray.sweeps.record import SweepRecord
from dfnas_ray.sweeps.trials import SweepJob
from dfnas_ray.teachers.base import Teacher
from dfnas_ray.training.retraining import Retrained, RetrainingJob


class RayExecutor(Executor):
    """Runs work on a cluster that was started for this command, or joined."""

    def __init__(
        self, cluster: ClusterConfig, marker: Location, imports: Mapping[str, str] | None = None, verbose: bool = False
    ):
        super().__init__(cluster, marker, imports, verbose)
        self.size = ClusterSize(cluster)
        self._connection = Connection(cluster, verbose)
        self._storage = SharedStorage(marker)
        self._is_checked = False

    def open(self) -> None:
        """Start or join the cluster. Make sure that all nodes see the run directory and can import what is needed.

        Raises:
            ConfigError: a tracker is not installed, or its data would be lost with the job.
            ClusterError: the cluster cannot be reached, or a node fails one of these checks.
        """
        check_installed(self.tracking)
        if is_submitted():
            self.tracking.check_lasting(self.marker.is_local, os.environ)
        self._connection.ensure()
        if not self._is_checked:
            check_imports(self.imports, self.cluster)
            self._is_checked = True
        self._storage.check()

    def close(self) -> None:
        """Leave the cluster; end it if it was started here."""
        self._connection.close()

    def explain(self, error: Exception) -> DfnasError | None:
        """See `Executor`. If the cluster was lost on this machine, the command ends here."""
        self._connection.check_lost()
        if isinstance(error, RaySystemError | RpcError) or (
            self.cluster.ray_client and isinstance(error, ConnectionError)
        ):
            reason = last_line(error).rstrip(".")
            return ClusterError(
                f"Ray ({self.cluster.address}) was lost while this command was at work: {reason}. What is finished is kept; run "
                "the same command again to go on from there."
            )
        return None

    def facts(self) -> dict[str, str | int | float]:
        """See `Executor`."""
        return self.size.facts()

    def share(self, value: T) -> Shared[T]:
        """See `Executor`.

        Raises:
            ClusterError: the value cannot be sent.
        """
        return Stored(put(value))

    def compute(self, function: Callable[..., T], *arguments: Any) -> Shared[T]:
        """See `Executor`."""
        given = [one.reference if isinstance(one, Stored) else one for one in arguments]
        return Stored(_compute.remote(function, *given))

    @contextmanager
    def show(self, task: Task) -> Iterator[Board]:
        """See `Executor`."""
        board = ProgressBoard()
        with board.shown_on(task):
            yield board

    def check_fits(self, stage: ClusterStage, workers: int = 1) -> None:
        """See `Executor`."""
        self.size.check_fits(stage, self.cluster.of(stage), workers)

    def room_for(self, resources: WorkerResources) -> int:
        """See `Executor`."""
        return self.size.room_for(resources)

    def room_beside(self, resources: WorkerResources, others: WorkerResources, num_others: int) -> int:
        """See `Executor`."""
        return self.size.room_beside(resources, others, num_others)

    def check_beside(self, stage: ClusterStage, other: ClusterStage, num_others: int, why: str) -> None:
        """See `Executor`."""
        self.size.check_beside(stage, self.cluster.of(stage), other, self.cluster.of(other), num_others, why)

    def map(
        self,
        work: Work[Item, Result],
        items: Sequence[Item],
        on_done: Callable[[Item, Result], object],
        crew: Crew | None = None,
        after: Mapping[Item, Item] | None = None,
    ) -> dict[Item, str]:
        """See `Executor`."""
        if not items:
            return {}
        resources, crew = self.cluster.of(work.stage), crew or Crew()
        size = crew.size or self.room_for(resources)
        most = sum((after or {}).get(item) not in items for item in items)  # the others wait for one of these
        pool = Pool(actor_maker(work, resources, self.marker), work, resources.attempts, min(size, most), crew)
        with waiting_is_told(self.size, work.stage, resources):
            return pool.run(items, on_done, after)

    def run_trials(
        self,
        job: SearchJob,
        trials: Iterable[Trial],
        teacher: Shared[Teacher],
        images: Shared[SyntheticImages] | ShardFolder,
        board: Board,
    ) -> None:
        """See `Executor`. A population is a Tune experiment of its own, in which every candidate is a trial."""
        from dfnas_ray.execution.ray.population import search_population
        from dfnas_ray.execution.ray.trials import run_trials

        trials = list(trials)
        check_can_be_sent(job, trials)
        populations = [trial for trial in trials if trial.algorithm.measures_population]
        alone = [trial for trial in trials if trial not in populations]
        with waiting_is_told(self.size, "search", job.resources):
            if alone:
                run_trials(job, alone, teacher, images, board, self._callbacks())
            for trial in populations:
                assert not isinstance(images, ShardFolder), "candidates are compared on the whole set"
                search_population(job, trial, teacher, images, board, self.room_for(job.resources))

    def _callbacks(self) -> list[tune.Callback]:
        here = Path(self.marker.path).parent if self.marker.is_local else None
        return callbacks(self.tracking, self.name, here)

    def measure_population(
        self,
        job: SearchJob,
        trial: Trial,
        genotypes: Sequence[Genotype],
        teacher: Shared[Teacher],
        images: Shared[SyntheticImages],
        board: Board,
    ) -> list[Measurement]:
        """See `Executor`."""
        from dfnas_ray.execution.ray.population import measure_population

        with waiting_is_told(self.size, "search", job.resources):
            return measure_population(job, trial, genotypes, teacher, images, board)

    def train(
        self, job: RetrainingJob, teacher: Shared[Teacher], images: Shared[SyntheticImages], board: Board
    ) -> Retrained:
        """See `Executor`."""
        from dfnas_ray.execution.ray.training import train

        with waiting_is_told(self.size, "retraining", job.resources):
            return train(job, teacher, images, board)

    def run_sweep(self, job: SweepJob, record: SweepRecord, judge: Shared[Judge], board: Board) -> None:
        """See `Executor`."""
        from dfnas_ray.execution.ray.sweep import run_sweep

        resources = self.cluster.synthesis
        with waiting_is_told(self.size, "synthesis", resources):
            run_sweep(job, resources, self.room_for(resources), record, judge, board, self._callbacks())


@ray.remote(num_cpus=0)
def _compute(function: Callable[..., T], *arguments: Any) -> T:
    worker_device(1)
    return function(*arguments)
