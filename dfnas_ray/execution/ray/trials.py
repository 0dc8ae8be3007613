"""Search trials as Ray Tune trials, their candidates scored by Ray tasks."""

from __future__ import annotations

import logging
from collections.abc import Sequence
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

    try:
        run_trial(
            trial,
            job,
            teacher.get(),
            images if isinstance(images, ShardFolder) else images.get(),
            device,
            board,
            lambda scorer: _measure_in_tasks(scorer, job.resources, device),
            report,
        )
    except ShardsMissing:
        tune.report({"paused": True})  # its state is kept; it is started again when all shards exist


logger = logging.getLogger(__name__)

_scorers: dict[str, Scorer] = {}  # the last scorer that this worker process was given


@ray.remote
def _score(scorer: list[ray.ObjectRef[Scorer]], genotypes: list[Genotype], threads: int) -> list[Measurement]:
    """Measure candidates in this worker, which keeps the scorer for its next task."""
    device = worker_device(threads)
    key = scorer[0].hex()
    if key not in _scorers:
        _scorers.clear()
        _scorers[key] = ray.get(scorer[0])
        _scorers[key].to(device)
    return _scorers[key](genotypes)


def _measure_in_tasks(scorer: Scorer, resources: SearchResources, device: torch.device) -> MeasureCandidates:
    """Return a function that measures candidates with Ray tasks, in the places that the trial holds."""
    if resources.scoring_workers == 0 and resources.gpus:
        return scorer  # the trial holds its GPU, which no task could share
    scorer.to(torch.device("cpu"))
    shared = put(scorer)
    group = get_current_placement_group()

    def submit(worker: int, genotypes: list[Genotype]) -> Any:
        own = resources.scoring_workers == 0  # the trial waits meanwhile, so its resources are free
        strategy = PlacementGroupSchedulingStrategy(group, 0 if own else 1 + worker) if group else "DEFAULT"
        task = _score.options(
            **({"num_cpus": 0} if own else resources.options()),
            scheduling_strategy=strategy,
            max_retries=0,  # Ray would try again for ever where the memory runs out
        )
        return task.remote([shared], genotypes, resources.cpus)

    def result(call: Any, worker: int, part: list[Genotype]) -> list[Measurement]:
        for attempt in range(2, resources.attempts + 1):
            try:
                return ray.get(call)
            except RayTaskError:
                raise
            except RayError as error:
                reason, attempts = reason_of(error, "search"), resources.attempts
                logger.warning(
                    "A worker that scores candidates died (%s): attempt %d of %d follows.", reason, attempt, attempts
                )
                call = submit(worker, part)
        return ray.get(call)

    def measure(genotypes: Sequence[Genotype]) -> list[Measurement]:
        workers = max(1, resources.scoring_workers)
        parts = [list(genotypes[worker::workers]) for worker in range(workers)]
        calls = [submit(worker, part) for worker, part in enumerate(parts)]
        ordered: list[Measurement] = [{}] * len(genotypes)
        for worker, (call, part) in enumerate(zip(calls, parts, strict=True)):
            ordered[worker::workers] = result(call, worker, part)
        return ordered

    return measure
