"""A sweep: from an experiment with a ``sweep`` section to its best settings, with a list of all trials."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import scipy  # its modules are imported when they are first used
import torch
from optuna.trial import FrozenTrial, TrialState
from pydantic import BaseModel, ConfigDict

from dfnas_ray import formatting
from dfnas_ray.config.experiment import ExperimentConfig, dump_experiment, make_experiment
from dfnas_ray.datasets.base import check_classes, open_dataset
from dfnas_ray.errors import ConfigError, DfnasError, StorageError, TeacherError
from dfnas_ray.execution.base import Work
from dfnas_ray.seeding import derive_seed
from dfnas_ray.storage.location import Count, JsonObject, Location
from dfnas_ray.storage.shards import SyntheticImages
from dfnas_ray.storage.shared import Shared
from dfnas_ray.sweeps.checks import check_effects, check_objectives, check_settings
from dfnas_ray.sweeps.config import SweepConfig
from dfnas_ray.sweeps.judged import Examination
from dfnas_ray.sweeps.measure import Judge, proxy_architecture
from dfnas_ray.sweeps.ranges import Parameter
from dfnas_ray.sweeps.record import SweepRecord, trial_folder
from dfnas_ray.sweeps.result import TRIALS_FILE, Figures, SweptTrial, TriedSettings, TriedTrials, best_of, read_trials
from dfnas_ray.sweeps.trials import SweepJob, reference_images, shard_job
from dfnas_ray.synthesis.config import SynthesisConfig
from dfnas_ray.synthesis.job import ShardJob
from dfnas_ray.teachers import Teacher
from dfnas_ray.teachers.base import load_teacher
from dfnas_ray.workflow.events import EventLog
from dfnas_ray.workflow.session import Session
from dfnas_ray.workflow.stage import Record, Stage

_BETWEEN = 0.38  # of a range: not a whole number, so that a range of a whole-number setting fails early


class BestSettings(BaseModel):
    """The trial that the sweep chose."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    number: Count
    settings: JsonObject
    values: tuple[float, ...]
    figures: Figures


class SweptRecord(Record):
    """What a sweep found.

    Attributes:
        asked: The number of trials that were asked for.
        trials: The number of trials by state.
        best: The trial that the sweep chose.
        pareto_front: The numbers of the trials that no other trial beats, in order of merit.
        data_free: Whether no real model or real label decided.
    """

    asked: Count
    trials: dict[str, Count]
    objectives: tuple[str, ...]
    best: BestSettings
    pareto_front: tuple[Count, ...]
    data_free: bool

    @property
    def headline(self) -> str:
        """See `Record`."""
        return f"trial {self.best.number} is the best of {sum(self.trials.values()):,}"

    def detail(self, folder: Location) -> str:
        """See `Record`."""
        return formatting.plural(sum(self.trials.values()), "trial")


class Sweep(Stage[SweptRecord]):
    """The stage that runs a study: trials with their images, and the best settings as an experiment."""

    name = "sweep"
    title = "Sweep"
    record = SweptRecord
    uses_code_of = ("synthesis", "sweep", "search.space")
    workers = "synthesis"
    has_own_command = True

    def __init__(self, session: Session):
        super().__init__(session)
        self.experiment, self.config = session.config, sweep_config(session.config)

    def inputs(self) -> JsonObject:
        """Return the inputs on which trials depend. Their number is not among them: more can be added later."""
        experiment, labelled, resizing = self.experiment, self.config.labelled, self.session.teacher.resizing
        return {
            **(
                {}
                if labelled is None
                else {"files": resizing.keyed(open_dataset(labelled, "sweep.labelled").fingerprint)}
            ),
            **({} if self.verifier is None else {"verifier": self.verifier.fingerprint}),
            "teacher": self.session.teacher.fingerprint,
            "seed": experiment.seed,
            "synthesis": experiment.synthesis.model_dump(mode="json"),
            "sweep": self.config.model_dump(mode="json", exclude={"trials", "concurrency"}),
            "space": experiment.search.space[0].model_dump(mode="json"),
            "max_macs": self._limit,
            "distillation": experiment.retraining.distillation.model_dump(mode="json"),
            "threads": experiment.cluster.synthesis.cpus,
        }

    @cached_property
    def verifier(self) -> Teacher | None:
        """The second classifier, which judges images; None if the sweep has none.

        Raises:
            TeacherError: it cannot be loaded, or takes other images or knows other classes than the teacher.
        """
        if self.config.verifier is None:
            return None
        teacher = self.session.teacher
        verifier = load_teacher(self.config.verifier, self.session.teacher_cache)
        if (verifier.image_shape, verifier.num_classes) != (teacher.image_shape, teacher.num_classes):
            raise TeacherError(
                f"sweep.verifier ({verifier.name}) takes {verifier.image_shape} and knows {verifier.num_classes} "
                f"classes, but the teacher takes {teacher.image_shape} and knows {teacher.num_classes}. They must be "
                "the same."
            )
        return verifier

    @property
    def _limit(self) -> int | None:
        """The MACs limit of a later search. If no network keeps to it, the student is the smallest network."""
        return self.experiment.search.macs_limit(self.session.teacher.cost.macs)

    def check(self) -> None:
        """See `Stage`."""
        check_address(self.experiment)
        teacher, labelled = self.session.teacher, self.config.labelled
        if labelled is not None:
            dataset = open_dataset(labelled, "sweep.labelled")
            check_classes(dataset, teacher.num_classes, "sweep.labelled", teacher.class_names)
        check_ranges(teacher, self.experiment, self.config)

    def read(self) -> SweptRecord | None:
        """Return the record if it has as many trials as are asked for, and the file of the trials can be read."""
        record = super().read()
        if record is None:
            return None
        try:
            read_trials(self.location)
        except StorageError as error:
            self.session.listener.say(f"{self.name}: is described anew. {error}")
        else:
            if record.asked >= self.config.num_trials:
                return record
        self.check_fits()
        self.dir.reopen()
        return None

    def work(self) -> SweptRecord:
        """See `Stage`."""
        session, config = self.session, self.config
        job = SweepJob(config, self.experiment.synthesis, self.experiment.seed, self.location)
        judge = session.executor.share(self._judge())
        with SweepRecord.opened(config, self.location, session.listener.say) as record:
            record.recover(session.listener.say)
            todo = record.num_open()
            if 0 < todo < config.num_trials:
                session.listener.say(
                    f"sweep: {config.num_trials - todo} of {config.num_trials} trials are finished already."
                )
            total, executor = todo * job.steps_of_a_trial, session.executor
            with session.listener.task("Sweeping", total, "image step") as task, executor.show(task) as board:
                executor.run_sweep(job, record, judge, board)
            trials = [self._describe(trial) for trial in record.trials()]
        (self.location / TRIALS_FILE).write_model(TriedTrials(tuple(trials)))
        return self._write_best(trials)

    def _judge(self) -> Judge:
        """Return the judge, which measures every trial's images."""
        session, experiment, config, teacher = self.session, self.experiment, self.config, self.session.teacher
        space = session.spaces[0]
        judge = Judge(
            config,
            teacher,
            space,
            proxy_architecture(space, self._limit, experiment.seed),
            experiment.retraining.distillation,
            Examination(torch.empty(0), torch.empty(0)),
            experiment.seed,
            self.verifier,
            open_dataset(config.labelled, "sweep.labelled") if config.labelled is not None else None,
        )
        if not judge.needs_student:
            return judge
        return replace(judge, examination=Examination.of(self._reference(), teacher, config.reference.share))

    def _reference(self) -> list[SyntheticImages]:
        """Return the images on which students are examined. Settings that do not fit together are left out."""
        session, experiment, config = self.session, self.experiment, self.config
        # A seed of its own, so that no trial's images are among them, even if its settings are.
        seed = derive_seed(experiment.seed, "sweep-reference")
        jobs: dict[int, ShardJob] = {}
        for number, parameters in enumerate(reference_settings(config, experiment.seed)):
            try:
                settings = config.synthesis(experiment.synthesis, parameters, fixed=True)
            except ConfigError as error:
                session.listener.say(f"Reference setting {number} is left out. {error}")
                continue
            batch = min(settings.method.batch_size, config.reference.images)
            method = settings.method.model_copy(update={"batch_size": batch})
            images = method.warmup_images + -(-config.reference.images // batch) * batch
            settings = settings.model_copy(update={"num_shards": 1, "images_per_shard": images, "method": method})
            jobs[number] = shard_job(session.teacher, settings, seed, self.location / f"reference-{number:03d}")
        made: dict[int, SyntheticImages] = {}
        work = Work("synthesis", "reference setting", MakeReference(session.shared_teacher, jobs))
        with session.listener.task("Making reference images", len(jobs), "setting") as task:

            def on_made(number: int, images: SyntheticImages) -> None:
                made[number] = images
                task.advance_to(len(made))

            failed = session.executor.map(work, list(jobs), on_made)
        for _, reason in sorted(failed.items()):
            session.listener.say(f"A reference setting is left out. {reason}")
        if not made:
            raise DfnasError(
                f"None of the sweep's {config.reference.settings} reference settings gives images. "
                f"{' '.join(list(failed.values())[:1])}"
            )
        return [made[number] for number in sorted(made)]

    def _describe(self, trial: FrozenTrial) -> TriedSettings:
        result = SweptTrial.read(trial_folder(self.location, trial.number), trial.number, self.session.listener.say)
        ranges = self.config.settings
        return TriedSettings(
            number=trial.number,
            state=trial.state.name.lower(),
            parameters=trial.params,
            settings={path: ranges[path].value(value) for path, value in trial.params.items()},
            values=tuple(trial.values) if trial.state is TrialState.COMPLETE else None,
            figures={**trial.user_attrs, **({} if result is None else result.figures)},
            seconds=None if result is None else result.seconds,
            error=None if result is None else result.error,
        )

    def _write_best(self, trials: Sequence[TriedSettings]) -> SweptRecord:
        config = self.config
        best, front = best_of(trials, config.directions)
        by_number = {trial.number: trial for trial in trials}
        for number in front:
            text = self._best_experiment(by_number[number])
            if number == best.number:
                (self.location / "best.yaml").write_bytes(text.encode())
            if len(front) > 1:
                (self.location / f"pareto-{number:05d}.yaml").write_bytes(text.encode())
        states = [trial.state for trial in trials]
        return SweptRecord(
            asked=config.num_trials,
            trials={state: states.count(state) for state in sorted(set(states))},
            objectives=config.objectives,
            best=BestSettings(
                number=best.number, settings=best.settings, values=best.values or (), figures=best.figures
            ),
            pareto_front=tuple(front),
            data_free=config.is_data_free,
        )

    def log(self, record: SweptRecord, events: EventLog) -> None:
        """See `Stage`: a run for each trial, with its settings and figures."""
        for trial in (self.location / "trials.json").read_model(TriedTrials).root:
            with events.run(f"trial-{trial.number:05d}") as run:
                run.hyperparameters(trial.settings, trial.figures)

    def _best_experiment(self, trial: TriedSettings) -> str:
        """Return the experiment with a trial's settings for `dfnas run`, without settings fixed only to save time."""
        config, experiment = self.config, self.experiment
        synthesis = config.synthesis(experiment.synthesis, trial.parameters, fixed=False)
        values = zip(config.objectives, trial.values or (), strict=True)
        figures = ", ".join(f"{name} {value:.4g}" for name, value in values)
        source = "without real data" if config.is_data_free else "NOT data-free: a real model or real labels decided"
        header = f"# Trial {trial.number} of the sweep of {experiment.name}: {figures} ({source}).\n"
        return header + dump_experiment(_experiment_with(experiment, synthesis))


@dataclass(frozen=True)
class MakeReference:
    """The work on reference settings: it makes the images of one setting."""

    teacher: Shared[Teacher]
    jobs: dict[int, ShardJob]

    def __call__(self, device: torch.device) -> Callable[[int], SyntheticImages]:
        """Return the function that makes the images of one setting."""
        teacher = self.teacher.get()
        return lambda number: reference_images(teacher, self.jobs[number], device)


def sweep_config(config: ExperimentConfig) -> SweepConfig:
    """Return the sweep section. If there is none, the error shows an example."""
    if config.sweep is None:
        raise ConfigError(
            "The experiment has no sweep section. Add one, for instance\n"
            "sweep:\n  settings:\n    synthesis.regularizers.bn_statistics.weight: {log_uniform: [0.01, 100]}\n  trials: 20"
        )
    return config.sweep


def check_address(config: ExperimentConfig) -> None:
    """Refuse Ray Client with an object store: Tune and its searcher run on the head, but the study's copy is here.

    In a file system that the head shares with this machine, both open the same study.

    Raises:
        ConfigError: both are set. The message names the address.
    """
    if config.cluster.ray_client is not None and not Location.parse(config.run_directory).is_local:
        raise ConfigError(
            f"cluster.address ({config.cluster.ray_client}) is Ray Client's, through which a sweep cannot work in an object "
            f"store ({config.run_directory}). Its study would be a file on this machine, which the cluster's head cannot "
            "open. Let the cluster run it: dfnas submit FILE --command sweep."
        )


def check_ranges(teacher: Teacher, config: ExperimentConfig, sweep: SweepConfig) -> None:
    """Try the ends of each range and a point between them on the teacher, before hours are spent.

    Raises:
        ConfigError: a value is wrong. The message names the setting and its value.
    """
    settings = sweep.synthesis(config.synthesis, {}, fixed=True)
    check_effects(sweep, settings)
    check_objectives(teacher, sweep, settings)
    for path, range_ in sweep.settings.items():
        for value in range_.categories or (*range_.limits, range_.at(_BETWEEN)):
            try:
                settings = check_settings(teacher, config.synthesis, sweep, {path: value})
                check_objectives(teacher, sweep, settings)
                _experiment_with(config, sweep.synthesis(config.synthesis, {path: value}, fixed=False))
            except DfnasError as error:
                raise ConfigError(f"sweep.settings.{path} at {value!r}: {error}") from error


def reference_settings(sweep: SweepConfig, seed: int) -> list[dict[str, Parameter]]:
    """Return settings that cover the ranges evenly: a scrambled Latin hypercube (McKay et al. 1979)."""
    sampler = scipy.stats.qmc.LatinHypercube(len(sweep.settings), rng=derive_seed(seed, "sweep-reference") % 2**32)
    points = sampler.random(sweep.reference.settings)
    return [
        {path: range_.at(float(u)) for (path, range_), u in zip(sweep.settings.items(), point, strict=True)}
        for point in points
    ]


def _experiment_with(experiment: ExperimentConfig, synthesis: SynthesisConfig) -> ExperimentConfig:
    """Return the experiment with other settings of synthesis, and without the sweep.

    Raises:
        ConfigError: they do not fit its other settings.
    """
    values = {"synthesis": synthesis.model_dump(mode="json"), "sweep": None}
    return make_experiment({**experiment.model_dump(mode="json"), **values})
