"""A sweep over synthesis settings: Optuna proposes, Ray Tune runs the trials, a `SweepRecord` remembers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from dfnas_ray.config.cluster import SynthesisResources
from dfnas_ray.errors import DfnasError
from dfnas_ray.execution.ray.connection import worker_device
from dfnas_ray.execution.ray.errors import last_line
from dfnas_ray.execution.ray.halving import NumberedHalving
from dfnas_ray.execution.ray.proposals import SettingsSearch
from dfnas_ray.execution.ray.shared_storage import check_seen
from dfnas_ray.execution.ray.tune import fit
from dfnas_ray.progress import Board
from dfnas_ray.storage.shared import Shared
from dfnas_ray.sweeps.measure import Judge
from dfnas_ray.sweeps.record import SweepRecord
from dfnas_ray.sweeps.trials import SweepJob, run_trial


def run_sweep(
    job: SweepJob,
    resources: SynthesisResources,
    room: int,
    record: SweepRecord,
    judge: Shared[Judge],
    board: Board,
    callbacks: Sequence[tune.Callback] = (),
) -> None:
    """Run the open trials of a sweep; see `Executor.run_sweep`."""
    scheduler, stopped = _halving(job, record)
    for number in stopped:  # a command was interrupted before it recorded this
        record.prune(number)
    todo = record.num_open()
    if not todo:
        return
    trainable = tune.with_parameters(_trial, job=job, threads=resources.cpus, judge=judge, board=board)
    results = fit(
        tune.with_resources(trainable, tune.PlacementGroupFactory([resources.bundle()])),
        "sweep",
        # Neither metric nor mode: with several objectives they would make Tune forget all but one.
        tune.TuneConfig(
            search_alg=SettingsSearch(record, job.seed),
            scheduler=scheduler,
            num_samples=todo,
            max_concurrent_trials=job.sweep.concurrency or room,  # without a number, Tune asks for one place at a time
            reuse_actors=True,
        ),
        resources.attempts,
        callbacks=callbacks,
    )
    if results.errors:
        raise DfnasError(
            f"{len(results.errors)} of the sweep's trials failed {resources.attempts} times, the first with: "
            f"{last_line(results.errors[0], 'synthesis')}. What is finished is kept in {job.folder}; run the "
            "same command again to go on."
        )


def _trial(config: Mapping[str, Any], job: SweepJob, threads: int, judge: Shared[Judge], board: Board) -> None:
    check_seen(job.folder)
    device = worker_device(threads)
    parameters = {path: config[path] for path in job.sweep.settings}
    for result in run_trial(config["number"], config["compared"], parameters, job, judge.get(), device, board):
        tune.report(result)


def _halving(job: SweepJob, record: SweepRecord) -> tuple[TrialScheduler, list[int]]:
    """Return the scheduler, which knows all earlier results, and the open trials that it would have stopped."""
    pruning = job.sweep.pruning
    if pruning is None:
        return FIFOScheduler(), []
    objective, direction = job.sweep.objectives[0], job.sweep.directions[0]
    scheduler = NumberedHalving(
        _number_of,
        time_attr="rounds",
        metric=objective,
        mode="max" if direction == "maximize" else "min",
        max_t=job.sweep.most_rounds(job.synthesis) + 1,  # a finished trial is not stopped
        grace_period=pruning.min_rounds,
        reduction_factor=pruning.reduction_factor,
    )
    stopped = []
    for trial in sorted(record.trials(), key=lambda trial: (not trial.state.is_finished(), trial.number)):
        decision = scheduler.tell(trial.number, sorted(trial.intermediate_values.items()))
        if decision == TrialScheduler.STOP and not trial.state.is_finished():
            stopped.append(trial.number)
    return scheduler, stopped


def _number_of(config: Mapping[str, Any]) -> int:
    number: int = config["number"]
    return number
