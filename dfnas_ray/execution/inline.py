"""The executor without Ray: all work runs in this process, for notebooks, debuggers and machines without Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from dfnas_ray.algorithms.base import Measurement, SearchState
from dfnas_ray.algorithms.config import Trial
from dfnas_ray.algorithms.multi_fidelity import SuccessiveHalving
from dfnas_ray.algorithms.population import config_of
from dfnas_ray.algorithms.trials import SearchJob, make_problem, restore, run_trial, save
from dfnas_ray.config.cluster import ClusterStage, WorkerResources
from dfnas_ray.errors import ClusterError, DfnasError, StorageError
from dfnas_ray.execution.base import Crew, Executor, Item, Result, T, Work
from dfnas_ray.progress import Board, Task, Write
from dfnas_ray.search_spaces.base import Genotype
from dfnas_ray.seeding import fixed_threads
from dfnas_ray.storage.arrivals import ShardFolder
from dfnas_ray.storage.shards import SyntheticImages
from dfnas_ray.storage.shared import Shared
from dfnas_ray.sweeps import trials as sweep_trials
from dfnas_ray.sweeps.measure import Judge
from dfnas_ray.sweeps.pruning import is_weak
from dfnas_ray.sweeps.record import SweepRecord
from dfnas_ray.sweeps.trials import SweepJob
from dfnas_ray.teachers.base import Teacher
from dfnas_ray.training.checkpoints import FileCheckpoints
from dfnas_ray.training.retraining import Retrained, RetrainingJob, train_network


class Computed:
    """A value in this process, computed when it is first asked for."""

    def __init__(self, function: Callable[[], Any]):
        self.get = cache(function)


class BarBoard:
    """A board whose progress a bar of this process shows."""

    def __init__(self, task: Task):
        self._task = task
        self._done: dict[str, float] = {}
        self._notes: dict[str, str] = {}

    def writer(self, worker: str) -> Write:
        """See `Board`."""

        def write(done: float, note: str = "") -> None:
            self._done[worker] = done
            if note:
                self._notes[worker] = note
            self._task.advance_to(sum(self._done.values()), "  ".join(self._notes[w] for w in sorted(self._notes)))

        return write

    def start(self, worker: str, where: str) -> None:
        """Do nothing: in one process nothing is restarted."""


class InlineExecutor(Executor):
    """The only worker is this process. Its device is the GPU if torch finds one."""

    @property
    def device(self) -> torch.device:
        """The device of all computations."""
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def open(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""

    def facts(self) -> dict[str, str | int | float]:
        """See `Executor`."""
        return {"executor": "inline", "device": str(self.device)}

    def share(self, value: T) -> Shared[T]:
        """See `Executor`."""
        return Computed(lambda: value)

    def compute(self, function: Callable[..., T], *arguments: Any) -> Shared[T]:
        """See `Executor`."""

        def call() -> T:
            given = [one.get() if isinstance(one, Computed) else one for one in arguments]
            with threadpool_limits(1), fixed_threads(1):
                return function(*given)

        return Computed(call)

    @contextmanager
    def show(self, task: Task) -> Iterator[Board]:
        """See `Executor`."""
        yield BarBoard(task)

    def check_fits(self, stage: ClusterStage, workers: int = 1) -> None:
        """See `Executor`. One worker always fits, whatever its settings ask for."""
        if stage == "retraining" and workers > 1:
            raise ClusterError(
                f"retraining.num_workers ({workers}) train together, and with cluster.address inline there is one process. "
                "Set it to 1, or cluster.address to local."
            )

    def room_for(self, resources: WorkerResources) -> int:
        """See `Executor`."""
        return 1

    def room_beside(self, resources: WorkerResources, others: WorkerResources, num_others: int) -> int:
        """See `Executor`."""
        return 0

    def check_beside(self, stage: ClusterStage, other: ClusterStage, num_others: int, why: str) -> None:
        """See `Executor`."""
        raise ClusterError(
            f"There is no room for the {stage} stage beside the {other} stage: with cluster.address inline, one process does "
            f"everything. Set {why}."
        )

    def map(
        self,
        work: Work[Item, Result],
        items: Sequence[Item],
        on_done: Callable[[Item, Result], object],
        crew: Crew | None = None,
        after: Mapping[Item, Item] | None = None,
    ) -> dict[Item, str]:
        """See `Executor`. An unexpected error is raised unchanged, so that a debugger stops where it arose."""
        failed: dict[Item, str] = {}
        if not items:
            return failed
        with self._threads_of(work.stage):
            do = work.prepare(self.device)
            if crew is not None:
                crew.on_started()
            for item in _chain_by_chain(items, after or {}):
                if after and (before := after.get(item)) in failed:
                    failed[item] = work.cannot_follow(before)
                    continue
                try:
                    result = do(item)
                except DfnasError as error:
                    failed[item] = str(error)
                else:
                    on_done(item, result)
        return failed

    def run_trials(
        self,
        job: SearchJob,
        trials: Iterable[Trial],
        teacher: Shared[Teacher],
        images: Shared[SyntheticImages] | ShardFolder,
        board: Board,
    ) -> None:
        """See `Executor`. A population is compared rung by rung, in the synchronous form of its algorithm."""
        source = images if isinstance(images, ShardFolder) else images.get()
        with self._threads_of("search"):
            for trial in trials:
                run_trial(trial, job, teacher.get(), source, self.device, board)

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
        folder, write = job.trial_folder(trial), board.writer(trial.name)
        config = config_of(trial)
        with self._threads_of("search"):
            problem = make_problem(job, trial, teacher.get(), images.get(), self.device)
            search = SuccessiveHalving(config, problem, list(dict.fromkeys(genotypes)))
            state = SearchState(search)
            restore(state, folder)
            texts = [search.space.encode(genotype) for genotype in dict.fromkeys(genotypes)]
            if [one.genotype for one in search.population.candidates] != texts:
                raise StorageError(f"{folder} holds other architectures. Delete it and run again.")

            def on_progress(state: SearchState) -> None:
                save(state, folder)
                write(len(genotypes) * len(state.history) / max(1, state.algorithm.num_epochs))

            state.run(on_progress)
        measured = {one.genotype: config.measurement(one) for one in search.population.candidates}
        return [measured[search.space.encode(genotype)] for genotype in genotypes]

    def train(
        self, job: RetrainingJob, teacher: Shared[Teacher], images: Shared[SyntheticImages], board: Board
    ) -> Retrained:
        """See `Executor`."""
        checkpoints = FileCheckpoints.of(job)
        with self._threads_of("retraining"):
            checkpoints.catch_up(job)
            train_network(job, teacher.get(), images.get(), self.device, checkpoints, board)
        return checkpoints.trained(job)

    def run_sweep(self, job: SweepJob, record: SweepRecord, judge: Shared[Judge], board: Board) -> None:
        """See `Executor`. Optuna is asked directly."""
        with self._threads_of("synthesis"):
            for _ in range(record.num_open()):
                self._sweep_trial(job, record, judge, board)
                record.keep()

    def _sweep_trial(self, job: SweepJob, record: SweepRecord, judge: Shared[Judge], board: Board) -> None:
        """Run the next trial of a sweep to its end, or continue one that was interrupted."""
        trial, pruning = record.ask(job.seed), job.sweep.pruning

        def is_pruned() -> bool:
            known = record.trial(trial.number)
            return pruning is not None and is_weak(pruning, job.sweep.directions[0], known, record.trials())

        compared = max(trial.intermediate_values, default=0)
        if is_pruned():  # an earlier command was interrupted before it recorded this
            record.prune(trial.number)
            return
        results = sweep_trials.run_trial(trial.number, compared, trial.params, job, judge.get(), self.device, board)
        for result in results:
            if record.tell(result):
                return
            if is_pruned():
                record.prune(trial.number)
                return

    @contextmanager
    def _threads_of(self, stage: ClusterStage) -> Iterator[None]:
        """Use as many threads as a worker of the stage has: their number decides the last bits of sums."""
        threads = self.cluster.of(stage).cpus
        with threadpool_limits(threads), fixed_threads(threads):
            yield


def _chain_by_chain(items: Sequence[Item], after: Mapping[Item, Item]) -> Iterator[Item]:
    """Yield each item directly before the one that comes after it: the worker then still has what that goes on from."""
    known, followers = set(items), {before: item for item, before in after.items()}
    for start in items:
        if after.get(start) in known:
            continue
        yield start
        item = start
        while followers.get(item) in known:
            item = followers[item]
            yield item
