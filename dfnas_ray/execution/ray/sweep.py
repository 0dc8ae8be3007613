"""A sweep over synthesis settings: Optuna proposes, Ray Tune runs the trials, a `SweepRecord` remembers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
import ray
from optuna.trial import TrialState
from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from dfnas_ray.config.cluster import SynthesisResources
from dfnas_ray.errors import DfnasError, ShardError
from dfnas_ray.execution.ray.board import ProgressBoard
from dfnas_ray.execution.ray.cluster import worker_device
from dfnas_ray.execution.ray.halving import NumberedHalving
from dfnas_ray.execution.ray.shared_storage import check_seen
from dfnas_ray.execution.ray.synthesis_pool import ShardJob, commit_shard
from dfnas_ray.execution.ray.tune_runs import StudySearch, fit, last_line
from dfnas_ray.seeding import derive_seed
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.run_dir import fingerprint
from dfnas_ray.storage.shards import SyntheticImages, decode_shard, ids_of_shard, shard_name
from dfnas_ray.sweeps.checks import check_settings
from dfnas_ray.sweeps.config import SweepConfig
from dfnas_ray.sweeps.measure import Judge
from dfnas_ray.sweeps.ranges import Parameter
from dfnas_ray.sweeps.record import STUDY, SweepRecord, trial_folder
from dfnas_ray.sweeps.samplers import make_sampler, propose
from dfnas_ray.synthesis.config import SynthesisConfig
from dfnas_ray.synthesis.inversion import Inverter
from dfnas_ray.synthesis.shard import synthesize_rounds
from dfnas_ray.teachers.base import Teacher

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SweepJob:
    """What all trials of one sweep have in common."""

    sweep: SweepConfig
    synthesis: SynthesisConfig
    resources: SynthesisResources
    seed: int
    folder: Location

    @staticmethod
    def steps(config: SynthesisConfig) -> int:
        """Return image steps of one trial, to show progress by."""
        return config.image_steps_per_shard * config.num_shards

    @property
    def steps_of_a_trial(self) -> int:
        """Image steps of a trial with the experiment's own settings, for which every trial counts."""
        return self.steps(self.sweep.synthesis(self.synthesis, {}, fixed=True))


def recover(job: SweepJob, record: SweepRecord) -> None:
    """Settle what a command that was cut off has left: trials with a result, and those that were to be stopped."""
    record.recover()
    _, stopped = _halving(job, record)
    for number in stopped:
        record.end(number, TrialState.PRUNED)


def run_sweep(job: SweepJob, record: SweepRecord, judge: Judge, board: ProgressBoard) -> None:
    """Run the trials of a recovered sweep to its number; their results are in the record and beside their images.

    Raises:
        DfnasError: a trial's process died again and again; says which, and how to go on.
    """
    resources, todo = job.resources, record.num_open()
    if not todo:
        return
    trainable = tune.with_parameters(_trial, job=job, judge=[ray.put(judge)], board=board)
    scheduler, _ = _halving(job, record)
    results = fit(
        tune.with_resources(trainable, tune.PlacementGroupFactory([resources.bundle()])),
        "sweep",
        # Neither metric nor mode: with several objectives they would make Tune forget all but one.
        tune.TuneConfig(
            search_alg=_Search(job, record),
            scheduler=scheduler,
            num_samples=todo,
            max_concurrent_trials=job.sweep.concurrency,
            reuse_actors=True,
        ),
        resources.attempts,
    )
    if results.errors:
        raise DfnasError(
            f"{len(results.errors)} of the sweep's trials failed {resources.attempts} times, the first with: "
            f"{last_line(results.errors[0])}. What is finished is kept in {job.folder}; run the "
            "same command again to go on."
        )


def make_reference(
    jobs: Sequence[ShardJob], teacher: Teacher, resources: SynthesisResources, on_made: Callable[[int], None]
) -> tuple[list[SyntheticImages], list[str]]:
    """Return the images of the last round of each setting's first shard, and why some settings gave none."""
    shared, made, failed = ray.put(teacher), [], []
    task = _make_images.options(**resources.options(), max_retries=resources.attempts - 1)
    for number, running in enumerate([task.remote(job, [shared], resources.cpus) for job in jobs], start=1):
        try:
            made.append(ray.get(running))
        except DfnasError as error:
            failed.append(str(getattr(error, "cause", None) or error))
        on_made(number)
    return made, failed


@ray.remote
def _make_images(job: ShardJob, teacher: list[ray.ObjectRef[Teacher]], cpus: int) -> SyntheticImages:
    device = worker_device(cpus)
    images = _shard(Inverter(ray.get(teacher[0]), job.config, device), job, 0)
    return images.select(images.rounds == images.rounds.max())


def _shard(inverter: Inverter, job: ShardJob, shard: int) -> SyntheticImages:
    *_, images = _rounds(inverter, job, shard, lambda images: None)
    return images


def _rounds(
    inverter: Inverter, job: ShardJob, shard: int, on_steps: Callable[[int], None]
) -> Iterator[SyntheticImages]:
    """Yield a shard's images after each round; after the last one it is committed.

    A shard that was committed before is whole at once.
    """
    location = job.folder / shard_name(shard)
    if location.exists():
        try:
            yield decode_shard(location.read_bytes(), job.key, str(location))[1]
            return
        except ShardError as error:
            logger.warning("%s", error)
    for made in synthesize_rounds(inverter, job.seed, shard, on_steps):
        if len(made.curves) == job.config.rounds:
            commit_shard(made, job, shard)
        yield SyntheticImages(made.images, made.labels, made.rounds, made.logits, ids_of_shard(shard, len(made.labels)))


def shard_job(teacher: Teacher, config: SynthesisConfig, seed: int, folder: Location) -> ShardJob:
    """Return the job of one setting's shards, whose key covers everything that they depend on."""
    key = fingerprint([teacher.fingerprint, seed, config.model_dump(mode="json")])
    return ShardJob(config, seed, key, teacher.fingerprint, folder)


def _trial(config: dict[str, Any], job: SweepJob, judge: list[ray.ObjectRef[Judge]], board: ProgressBoard) -> None:
    """Make one setting's images and measure them; an error of the setting is a result, too."""
    check_seen(job.folder)
    number: int = config["number"]
    folder = trial_folder(job.folder, number)
    shared: Judge = ray.get(judge[0])
    device = worker_device(job.resources.cpus)
    write = board.writer(f"trial {number}")
    started = time.monotonic()
    parameters: dict[str, Parameter] = {path: config[path] for path in job.sweep.settings}
    total = job.steps_of_a_trial
    try:
        settings = check_settings(shared.teacher, job.synthesis, job.sweep, parameters)
        shards = shard_job(shared.teacher, settings, job.seed, folder)
        inverter = Inverter(shared.teacher, settings, device)
        done, compared = 0, config["compared"]

        def on_steps(count: int) -> None:
            nonlocal done
            done += count
            write(min(1.0, done / job.steps(settings)) * total, "")

        for rounds, images in _growing(inverter, shards, on_steps):
            if rounds == settings.rounds * settings.num_shards:
                figures = shared(SyntheticImages.concatenate(images), device)
                seconds = round(time.monotonic() - started, 1)
                result = {"number": number, "rounds": rounds, "figures": figures, "seconds": seconds}
                (folder / "result.json").write_json(result)
                tune.report({**figures, "number": number, "rounds": rounds, "finished": True})
            elif job.sweep.pruning is not None and job.sweep.pruning.has_rung(compared, rounds):
                figures = shared(SyntheticImages.concatenate(images), device)
                tune.report({**figures, "number": number, "rounds": rounds, "finished": False})
                compared = rounds
    except DfnasError as error:
        reason = str(getattr(error, "cause", None) or error)
        logger.warning("Trial %d of the sweep cannot be finished: %s", number, reason)
        (folder / "result.json").write_json({"number": number, "error": reason})
        tune.report({"number": number, "failed": True})
    write(total, f"trial {number}")


def _growing(
    inverter: Inverter, job: ShardJob, on_steps: Callable[[int], None]
) -> Iterator[tuple[int, list[SyntheticImages]]]:
    """Make a trial's shards, and yield after each round how many rounds there are and each shard's images so far."""
    whole: list[SyntheticImages] = []
    for shard in range(job.config.num_shards):
        for latest in _rounds(inverter, job, shard, on_steps):
            rounds = shard * job.config.rounds + int(latest.rounds.max()) + 1
            yield rounds, [*whole, latest]
        whole.append(latest)


class _Search(StudySearch):
    """Tune's searcher, with each trial's number among its settings and its end told to the record as what it is."""

    def __init__(self, job: SweepJob, record: SweepRecord):
        sweep = job.sweep
        self.job, self.record = job, record
        several = len(sweep.objectives) > 1
        modes = ["max" if direction == "maximize" else "min" for direction in sweep.directions]
        super().__init__(
            space=self._propose,
            metric=list(sweep.objectives) if several else sweep.objectives[0],
            mode=modes if several else modes[0],
            sampler=make_sampler(sweep, record.first_trials, job.seed),  # replaced for each trial
            study_name=STUDY,
            storage=record.storage,
        )

    def suggest(self, trial_id: str) -> Any:
        """Propose the next trial; after a break, just what would have been proposed without it."""
        seed = derive_seed(self.job.seed, "sweep", self.record.next_number())
        self._ot_study.sampler = make_sampler(self.job.sweep, self.record.first_trials, seed)
        return super().suggest(trial_id)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Keep what was measured; Tune tells of a trial's last result at its end alone."""
        self._remember(result)

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Tell how a trial ended: by its own failure, pruned, or complete.

        One whose process died too often has not ended; the next command goes on with it.
        """
        if not error and result and "number" in result:
            self._remember(result)
            is_whole = result.get("finished", False)
            super().on_trial_complete(trial_id, result if is_whole else None, result.get("failed", False))
        self.record.keep()

    def _propose(self, trial: optuna.Trial) -> dict[str, Any]:
        propose(self.job.sweep, trial)
        (stored,) = [each for each in self.record.trials() if each.number == trial.number]
        return {"number": trial.number, "compared": max(stored.intermediate_values, default=0)}

    def _remember(self, result: Mapping[str, Any]) -> None:
        pruning = self.job.sweep.pruning
        if "rounds" not in result:  # it failed
            return
        rounds = result["rounds"]
        # A trial that Tune started again finds a whole shard at once, and may report between two rungs.
        if result["finished"] or (pruning is not None and pruning.has_rung(rounds - 1, rounds)):
            self.record.remember(result["number"], rounds, result)


def _halving(job: SweepJob, record: SweepRecord) -> tuple[TrialScheduler, list[int]]:
    """Return what stops trials, told what all have shown before, and the open trials that it would have stopped."""
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
