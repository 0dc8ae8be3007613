"""A sweep over synthesis settings: Optuna proposes, Ray Tune runs the trials, a study on disk remembers.

Optuna's study is a SQLite file beside the trials' images, which `optuna-dashboard` opens. A trial has its number and its
settings there before it starts; one that a killed command left running goes back to the queue under the same number, and
its committed shards are kept. So nothing is lost, nothing is done twice, and nothing is unpickled.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import ray
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from dfnas_ray.distributed.board import ProgressBoard
from dfnas_ray.distributed.config import SynthesisResources
from dfnas_ray.distributed.halving import NumberedHalving
from dfnas_ray.distributed.runtime import worker_device
from dfnas_ray.distributed.synthesis_pool import ShardJob, commit_shard
from dfnas_ray.distributed.tune_runs import StudySearch, fit, last_line
from dfnas_ray.errors import DfnasError, ShardError
from dfnas_ray.seeding import derive_seed
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.run_dir import fingerprint
from dfnas_ray.storage.shards import SyntheticImages, decode_shard, ids_of_shard, shard_name
from dfnas_ray.sweeps.config import SweepConfig
from dfnas_ray.sweeps.measure import Judge
from dfnas_ray.sweeps.ranges import Parameter
from dfnas_ray.sweeps.samplers import make_sampler, propose
from dfnas_ray.sweeps.study import name_objectives
from dfnas_ray.synthesis.checks import check_synthesis
from dfnas_ray.synthesis.config import SynthesisConfig
from dfnas_ray.synthesis.inversion import Inverter
from dfnas_ray.synthesis.shard import synthesize_rounds
from dfnas_ray.teachers.base import Teacher

logger = logging.getLogger(__name__)

STUDY_FILE = "study.db"
_STUDY = "sweep"


@dataclass(frozen=True)
class SweepJob:
    """What all trials of one sweep have in common."""

    sweep: SweepConfig
    synthesis: SynthesisConfig
    resources: SynthesisResources
    seed: int
    folder: Location

    def trial_folder(self, number: int) -> Location:
        """Return where one trial keeps its shards and its result."""
        return self.folder / f"trial-{number:05d}"

    @staticmethod
    def steps(config: SynthesisConfig) -> int:
        """Return image steps of one trial, to show progress by."""
        return config.image_steps_per_shard * config.num_shards

    @property
    def steps_of_a_trial(self) -> int:
        """Image steps of a trial with the experiment's own settings, for which every trial counts."""
        return self.steps(self.sweep.synthesis(self.synthesis, {}, fixed=True))


@contextmanager
def opened_study(job: SweepJob) -> Iterator[tuple[RDBStorage, Callable[[], None]]]:
    """Open the study's storage; the second value keeps it where the run directory is, if that is not a local disk."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    file = job.folder / STUDY_FILE
    with tempfile.TemporaryDirectory(prefix="dfnas-study-") as scratch:
        path = Path(file.path) if file.is_local else Path(scratch) / STUDY_FILE
        if not file.is_local and file.exists():
            path.write_bytes(file.read_bytes())
        path.parent.mkdir(parents=True, exist_ok=True)
        storage = RDBStorage(f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": 60}})
        try:
            study = optuna.create_study(
                storage=storage, study_name=_STUDY, directions=job.sweep.directions, load_if_exists=True
            )
            name_objectives(study, job.sweep)
            yield storage, lambda: None if file.is_local else file.write_bytes(path.read_bytes())
        finally:
            storage.remove_session()
            if not file.is_local:
                file.write_bytes(path.read_bytes())


def study_of(storage: RDBStorage) -> optuna.Study:
    """Return the study of a storage that `opened_study` gave."""
    return optuna.load_study(study_name=_STUDY, storage=storage)


def recover(job: SweepJob, storage: RDBStorage) -> int:
    """Settle what a killed command left, and return how many trials are still to be started or gone on with.

    A trial with a result is told to the study; one without goes back to the queue under its own number.
    """
    study_id = storage.get_study_id_from_name(_STUDY)
    for trial in storage.get_all_trials(study_id, deepcopy=False, states=(TrialState.RUNNING,)):
        trial_id = storage.get_trial_id_from_study_id_trial_number(study_id, trial.number)
        file = job.trial_folder(trial.number) / "result.json"
        if not file.exists():
            storage.set_trial_state_values(trial_id, TrialState.WAITING)
            continue
        result = file.read_json()
        for name, value in result.get("figures", {}).items():
            storage.set_trial_user_attr(trial_id, name, value)
        if "error" in result:
            storage.set_trial_state_values(trial_id, TrialState.FAIL)
        else:
            values = [result["figures"][name] for name in job.sweep.objectives]
            storage.set_trial_state_values(trial_id, TrialState.COMPLETE, values)
    if job.sweep.sampler == "grid":
        _enqueue_grid(job.sweep, storage)
    finished = storage.get_all_trials(
        study_id, deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    )
    return max(0, job.sweep.num_trials - len(finished))


def run_sweep(job: SweepJob, judge: Judge, board: ProgressBoard) -> None:
    """Run the sweep's trials to its number; their results are in the study and beside their images.

    Raises:
        DfnasError: a trial's process died again and again; says which, and how to go on.
    """
    resources, sweep = job.resources, job.sweep
    with opened_study(job) as (storage, keep):
        todo = recover(job, storage)
        if not todo:
            return
        trainable = tune.with_parameters(_trial, job=job, judge=[ray.put(judge)], board=board)
        searcher = _Search(job, storage, keep)
        results = fit(
            tune.with_resources(trainable, tune.PlacementGroupFactory([resources.bundle()])),
            "sweep",
            # Neither metric nor mode: with several objectives they would make Tune forget all but one.
            tune.TuneConfig(
                search_alg=searcher,
                scheduler=_scheduler(job, storage),
                num_samples=todo,
                max_concurrent_trials=sweep.concurrency,
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
    number: int = config["number"]
    folder = job.trial_folder(number)
    shared: Judge = ray.get(judge[0])
    device = worker_device(job.resources.cpus)
    write = board.writer(f"trial {number}")
    started = time.monotonic()
    parameters: dict[str, Parameter] = {path: config[path] for path in job.sweep.settings}
    total = job.steps_of_a_trial
    try:
        settings = job.sweep.synthesis(job.synthesis, parameters, fixed=True)
        check_synthesis(shared.teacher, settings)
        shards = shard_job(shared.teacher, settings, job.seed, folder)
        inverter = Inverter(shared.teacher, settings, device)
        done, compared = 0, 0

        def on_steps(count: int) -> None:
            nonlocal done
            done += count
            write(min(1.0, done / job.steps(settings)) * total, "")

        for rounds, images in _growing(inverter, shards, on_steps):
            if rounds == settings.rounds * settings.num_shards:
                figures = shared(images, device)
                seconds = round(time.monotonic() - started, 1)
                (folder / "result.json").write_json({"number": number, "figures": figures, "seconds": seconds})
                tune.report({**figures, "number": number, "rounds": rounds, "finished": True})
            elif job.sweep.pruning is not None and job.sweep.pruning.has_rung(compared, rounds):
                tune.report({**shared(images, device), "number": number, "rounds": rounds, "finished": False})
                compared = rounds
    except DfnasError as error:
        reason = str(getattr(error, "cause", None) or error)
        logger.warning("Trial %d of the sweep cannot be finished: %s", number, reason)
        (folder / "result.json").write_json({"number": number, "error": reason})
        tune.report({"number": number, "rounds": 0, "finished": True, "failed": True})
    write(total, f"trial {number}")


def _growing(
    inverter: Inverter, job: ShardJob, on_steps: Callable[[int], None]
) -> Iterator[tuple[int, SyntheticImages]]:
    """Make a trial's shards, and yield after each round how many rounds there are and all images so far."""
    whole: list[SyntheticImages] = []
    for shard in range(job.config.num_shards):
        for latest in _rounds(inverter, job, shard, on_steps):
            rounds = shard * job.config.rounds + int(latest.rounds.max()) + 1
            yield rounds, SyntheticImages.concatenate([*whole, latest])
        whole.append(latest)


class _Search(StudySearch):
    """Tune's searcher, with each trial's number among its settings and its end told to the study as what it is."""

    def __init__(self, job: SweepJob, storage: RDBStorage, keep: Callable[[], None]):
        sweep = job.sweep
        self.job, self.keep = job, keep
        several = len(sweep.objectives) > 1
        modes = ["max" if direction == "maximize" else "min" for direction in sweep.directions]
        self.study_storage = storage
        super().__init__(
            space=lambda trial: _propose(sweep, trial),
            metric=list(sweep.objectives) if several else sweep.objectives[0],
            mode=modes if several else modes[0],
            sampler=make_sampler(sweep, job.seed),  # replaced for each trial
            study_name=_STUDY,
            storage=storage,
        )

    def suggest(self, trial_id: str) -> Any:
        """Propose the next trial; after a break, just what would have been proposed without it."""
        study_id = self.study_storage.get_study_id_from_name(_STUDY)
        seed = derive_seed(self.job.seed, "sweep", self.study_storage.get_n_trials(study_id))
        self._ot_study.sampler = make_sampler(self.job.sweep, seed)
        return super().suggest(trial_id)

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Tell the study; a trial that was stopped early is pruned, not complete with the value of few images."""
        if result and "number" in result:
            self._remember(result)
            if result.get("failed"):
                result, error = None, True
            elif not result["finished"]:
                result = None
        super().on_trial_complete(trial_id, result, error)
        self.keep()

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Keep what was measured; Tune tells of a trial's last result at its end alone."""
        if "number" in result:
            self._remember(result)

    def _stored(self, number: int) -> int:
        """Return the id under which the storage has a trial."""
        study_id = self.study_storage.get_study_id_from_name(_STUDY)
        trial_id: int = self.study_storage.get_trial_id_from_study_id_trial_number(study_id, number)
        return trial_id

    def _remember(self, result: Mapping[str, Any]) -> None:
        trial_id = self._stored(result["number"])
        for name in (
            "semantics",
            "diversity",
            "domain_gap",
            "student_proxy",
            "verifier_agreement",
            "labelled_accuracy",
        ):
            if name in result:
                self.study_storage.set_trial_user_attr(trial_id, name, result[name])
        self.study_storage.set_trial_user_attr(trial_id, "rounds", result["rounds"])
        (objective, *others) = self.job.sweep.objectives
        if objective in result and not others:  # Optuna keeps intermediate values of a single objective
            self.study_storage.set_trial_intermediate_value(trial_id, result["rounds"], float(result[objective]))


def _propose(sweep: SweepConfig, trial: optuna.Trial) -> dict[str, Any]:
    propose(sweep, trial)
    return {"number": trial.number}


def _scheduler(job: SweepJob, storage: RDBStorage) -> TrialScheduler:
    """Return what stops trials; it knows already what those before have shown."""
    pruning = job.sweep.pruning
    if pruning is None:
        return FIFOScheduler()
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
    for trial in study_of(storage).get_trials(deepcopy=False):
        shown = sorted(trial.intermediate_values.items())
        if not trial.state.is_finished():
            shown = shown[:-1]  # the last one is told again before it goes on: who knows what was decided then
        scheduler.tell(trial.number, shown)
    return scheduler


def _number_of(config: Mapping[str, Any]) -> int:
    number: int = config["number"]
    return number


def _enqueue_grid(sweep: SweepConfig, storage: RDBStorage) -> None:
    """Put every point of the grid that the study does not have yet into its queue."""
    from sklearn.model_selection import ParameterGrid

    study = study_of(storage)
    known = [{**trial.system_attrs.get("fixed_params", {}), **trial.params} for trial in study.get_trials()]
    for point in ParameterGrid({path: list(range_.grid or ()) for path, range_ in sweep.settings.items()}):
        if point not in known:
            study.enqueue_trial(point)
