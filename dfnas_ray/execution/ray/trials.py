"""Search trials as Ray Tune trials; further workers score their candidates."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import ray
import torch
from ray import tune
from ray.exceptions import RayError, RayTaskError
from ray.util.placement_group import get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from dfnas_ray.algorithms.base import HistoryEntry, MeasureCandidates, Measurement, Scorer
from dfnas_ray.algorithms.config import Trial
from dfnas_ray.algorithms.trials import SearchJob, run_trial
from dfnas_ray.config.cluster import SearchResources
from dfnas_ray.errors import DfnasError
from dfnas_ray.execution.ray.actors import end_actor
from dfnas_ray.execution.ray.connection import worker_device
from dfnas_ray.execution.ray.errors import last_line, reason_of
from dfnas_ray.execution.ray.sending import put
from dfnas_ray.execution.ray.shared_storage import check_seen
from dfnas_ray.execution.ray.tune import fit
from dfnas_ray.progress import Board
from dfnas_ray.search_spaces.base import Genotype
from dfnas_ray.storage.arrivals import ShardFolder, ShardsMissing
from dfnas_ray.storage.shards import SyntheticImages
from dfnas_ray.storage.shared import Shared
from dfnas_ray.teachers.base import Teacher


def run_trials(
    job: SearchJob,
    trials: Sequence[Trial],
    teacher: Shared[Teacher],
    images: Shared[SyntheticImages] | ShardFolder,
    board: Board,
    callbacks: Sequence[tune.Callback] = (),
) -> None:
    """Run search trials, each a Tune trial; see `Executor.run_trials`."""
    resources = job.resources
    places = tune.PlacementGroupFactory([resources.bundle()] * (1 + resources.scoring_workers), resources.placement)
    trainable = tune.with_parameters(_trial, job=job, trials=list(trials), teacher=teacher, images=images, board=board)
    results = fit(
        tune.with_resources(trainable, places),
        "search",
        tune.TuneConfig(reuse_actors=True, trial_name_creator=lambda one: trials[one.config["trial"]].name),
        resources.attempts,
        param_space={"trial": tune.grid_search(list(range(len(trials))))},
        callbacks=callbacks,
    )
    if results.errors:
        failed = [trial.name for trial, result in zip(trials, results, strict=True) if result.error]
        raise DfnasError(
            f"Search trial(s) {', '.join(failed)} failed {resources.attempts} times: {last_line(results.errors[0], 'search')}. "
            f"Their state is kept in {job.folder}; run the same command again to go on from there."
        )


def _trial(
    config: dict[str, int],
    job: SearchJob,
    trials: list[Trial],
    teacher: Shared[Teacher],
    images: Shared[SyntheticImages] | ShardFolder,
    board: Board,
) -> None:
    check_seen(job.folder)
    trial = trials[config["trial"]]
    if job.result_file(trial).exists():
        tune.report({"finished": True})
        return
    device = worker_device(job.resources.cpus)

    def report(entry: HistoryEntry) -> None:
        tune.report({name: value for name, value in entry.items() if isinstance(value, int | float)})

    with ExitStack() as ended:

        def measure_with(scorer: Scorer) -> MeasureCandidates:
            if not job.resources.scoring_workers:
                return scorer
            workers = ScoringWorkers(scorer, job.resources, device)
            ended.callback(workers.end)
            return workers

        try:
            run_trial(
                trial,
                job,
                teacher.get(),
                images if isinstance(images, ShardFolder) else images.get(),
                device,
                board,
                measure_with,
                report,
            )
        except ShardsMissing:
            tune.report({"paused": True})  # its state is kept; it is started again when all shards exist


logger = logging.getLogger(__name__)


class _Worker:
    """The actor that scores candidates. It holds the scorer for as long as the trial lasts, and always on its own GPU."""

    def __init__(self, shared: list[ray.ObjectRef[Scorer]], threads: int):
        device = worker_device(threads)
        self._scorer = ray.get(shared[0])
        self._scorer.to(device)

    def measure(self, genotypes: list[Genotype]) -> list[Measurement]:
        """Return one measurement per candidate."""
        return self._scorer(genotypes)


class ScoringWorkers:
    """The workers that score a trial's candidates: the trial itself, and an actor in each further place that it holds.

    Args:
        scorer: The trained scorer; it is on ``device`` afterwards.
        resources: Those of a search trial.
        device: The trial's own device.
    """

    def __init__(self, scorer: Scorer, resources: SearchResources, device: torch.device):
        self.scorer, self.resources = scorer, resources
        scorer.to(torch.device("cpu"))
        self._shared = put(scorer)
        scorer.to(device)
        self._group = get_current_placement_group()
        self._actors = [self._start(number) for number in range(resources.scoring_workers)]

    def __call__(self, genotypes: Sequence[Genotype]) -> list[Measurement]:
        """Return one measurement per candidate.

        Raises:
            RayError: a worker died in every attempt.
        """
        stride = 1 + len(self._actors)
        parts = [list(genotypes[start::stride]) for start in range(stride)]
        calls = [actor.measure.remote(part) for actor, part in zip(self._actors, parts[1:], strict=True)]
        ordered: list[Measurement] = [{}] * len(genotypes)
        ordered[::stride] = self.scorer(parts[0])
        for number, call in enumerate(calls):
            ordered[1 + number :: stride] = self._result(number, call, parts[1 + number])
        return ordered

    def end(self) -> None:
        """End the actors, so that their memory and their GPUs are free."""
        for actor in self._actors:
            end_actor(actor)

    def _start(self, number: int) -> Any:
        strategy = PlacementGroupSchedulingStrategy(self._group, 1 + number) if self._group else "DEFAULT"
        actor_class = ray.remote(**self.resources.options(), max_restarts=0, scheduling_strategy=strategy)(_Worker)
        return actor_class.remote([self._shared], self.resources.cpus)

    def _result(self, number: int, call: Any, part: list[Genotype]) -> list[Measurement]:
        attempts = self.resources.attempts
        for attempt in range(2, attempts + 1):
            try:
                return ray.get(call)
            except RayTaskError:
                raise
            except RayError as error:
                reason = reason_of(error, "search")
                logger.warning(
                    "A worker that scores candidates died (%s): attempt %d of %d follows.", reason, attempt, attempts
                )
                self._actors[number] = self._start(number)
                call = self._actors[number].measure.remote(part)
        return ray.get(call)
