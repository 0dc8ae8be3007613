"""Search: every algorithm in every space with every seed, and the choice of the best finalist."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import cached_property, partial
from hashlib import sha256

from dfnas_ray import formatting
from dfnas_ray.algorithms.config import Trial
from dfnas_ray.algorithms.selection import (
    ComparedScores,
    ComparedTrial,
    ComparedTrials,
    TrainAlone,
    TrialSummary,
    check_some_trained,
    name_of,
)
from dfnas_ray.algorithms.trials import SearchJob
from dfnas_ray.errors import ConfigError, StorageError
from dfnas_ray.execution.base import Work
from dfnas_ray.search_spaces.architecture import Architecture
from dfnas_ray.storage.arrivals import ShardFolder
from dfnas_ray.storage.location import Count, JsonObject, Location
from dfnas_ray.storage.shards import SyntheticImages
from dfnas_ray.storage.shared import Shared
from dfnas_ray.workflow.events import EventLog
from dfnas_ray.workflow.images import images_of
from dfnas_ray.workflow.session import Session
from dfnas_ray.workflow.stage import ImageSource, Record, Stage, of_other_images


class SearchRecord(Record, TrialSummary):
    """The best trial, and all trials.

    Attributes:
        max_macs: The upper limit on MACs.
        min_macs: The lower limit on MACs.
        images: The images that the trials used.
        data_free: Whether they were made without real images.
    """

    space_config: JsonObject
    max_macs: Count | None = None
    min_macs: Count | None = None
    images: str = "synthetic"
    data_free: bool = True
    trials: tuple[TrialSummary, ...]

    @property
    def headline(self) -> str:
        """See `Record`."""
        return f"{self.genotype} ({self.macs:,} MACs){of_other_images(self.images)}"

    def detail(self, folder: Location) -> str:
        """See `Record`."""
        return formatting.plural(len(self.trials), "trial")


class Search(Stage[SearchRecord]):
    """The stage that searches: trials with states and results, the comparison of finalists, and the choice."""

    name = "search"
    title = "Search"
    record = SearchRecord
    uses_code_of = ("search",)
    workers = "search"

    def __init__(self, session: Session, source: ImageSource | None = None):
        """Set up a search.

        Args:
            session: The session of the command.
            source: The source of the images; by default the one of `search.images`.
        """
        super().__init__(session)
        self.config = session.config.search
        self.source = images_of(session, self.config.images, "search.images") if source is None else source
        self.seconds_before = 0.0
        """The seconds of work on this search before the stage began."""

    def inputs(self) -> JsonObject:
        """See `Stage`."""
        files = self._files()
        return {
            "upstream": {self.source.name: self.source.key},
            "seed": self.session.config.seed,
            "search": self.config.settings,
            "threads": self.session.config.cluster.search.cpus,
            **({"files": files} if files else {}),
        }

    def check(self) -> None:
        """Find limits that no architecture meets, algorithms that the executor cannot run, and files of no use."""
        if self.is_done:
            return
        _ = self.session.max_macs
        if self.session.config.cluster.is_inline:
            for each in self.config.algorithm:
                if each.needs_many_workers:
                    raise ConfigError(each.needs_many_workers)
        self._check_files()

    def _check_files(self) -> None:
        teacher = self.session.teacher
        for algorithm, config in self.config.pairs:
            if algorithm.files:
                algorithm.check_files(config.space(teacher.image_shape, teacher.num_classes))

    def read(self) -> SearchRecord | None:
        """Return the record if the file of the trials beside it is intact."""
        record = super().read()
        if record is None or ComparedTrials.are_intact(self.location, self.session.listener.say):
            return record
        self.dir.reopen()
        return None

    def num_workers(self) -> int:
        """Return the number of a trial's workers: the trial itself, and those that score its candidates."""
        return 1 + self.session.config.cluster.search.scoring_workers

    def log(self, record: SearchRecord, events: EventLog) -> None:
        """See `Stage`: a run for each trial, with its metrics and its best score so far."""
        for trial in (self.location / "trials.json").read_models(ComparedTrial):
            with events.run(trial.trial) as run:
                for point in trial.history:
                    for name, value in {**point.metrics, "best": point.best}.items():
                        run.scalar(f"{point.phase}/{name}", value, point.number)
                facts = {
                    "algorithm": trial.algorithm,
                    "space": trial.space,
                    "seed": trial.seed,
                    "genotype": trial.genotype,
                }
                run.hyperparameters(facts, {"macs": trial.macs, "params": trial.params, "score": trial.own_score})

    def work(self) -> SearchRecord:
        """See `Stage`."""
        images = self.source.images(self.session.executor)
        self._run(images, list(self.config.trials))
        trials = self._choose(images)
        best = max(trials, key=lambda trial: trial.merit)
        ComparedTrials(tuple(trials)).write(self.location)
        return SearchRecord(
            **best.model_dump(exclude={"history", "arrivals"}),
            max_macs=self.session.max_macs,
            min_macs=self.session.min_macs,
            images=self.config.images.description,
            data_free=self.config.images.is_data_free,
            trials=tuple(trial.summary() for trial in trials),
            seconds=round(self.seconds_before + time.monotonic() - self.began, 2),
        )

    def go_ahead(self, images: ShardFolder) -> None:
        """Run every trial as far as possible while its images are being made; `work` continues from there."""
        self._run(images, [trial for trial in self.config.trials if trial.algorithm.trains_by_epochs])

    # Steps that are done here, or before by code that runs many searches at once (`workflow.side_by_side`)

    @property
    def job(self) -> SearchJob:
        """The settings that all trials have in common."""
        session, config = self.session, self.session.config
        limits = {"max_macs": session.max_macs, "min_macs": session.min_macs}
        return SearchJob(self.config, config.cluster.search, config.seed, folder=self.location, **limits)

    def without_result(self, trials: Iterable[Trial]) -> list[Trial]:
        """Return the trials that are not finished. An altered result is named in a message and removed."""
        job, say = self.job, self.session.listener.say
        return [trial for trial in trials if not job.is_over(trial, say, self._decoder(trial))]

    def unscored_finalists(self) -> dict[str, Architecture]:
        """Return the architectures that must still be trained alone, by `name_of`. All trials must be finished."""
        _, found = self._trials_and_finalists()
        return {name: found[name] for name in found if len(found) > 1 and name not in self._scores}

    def keep_score(self, name: str, score: float) -> None:
        """Record the score of a finalist that was trained alone, for this command and later ones."""
        self._scores[name] = score
        ComparedScores(self._scores).write(self.location)

    @cached_property
    def _scores(self) -> dict[str, float]:
        return ComparedScores.read(self.location, self.session.listener.say)

    def _run(self, images: Shared[SyntheticImages] | ShardFolder, trials: list[Trial]) -> None:
        """Run the trials that have no result yet."""
        session = self.session
        if todo := self.without_result(trials):
            executor = session.executor
            total = sum(trial.algorithm.steps_to_show for trial in self.config.trials)
            with session.listener.task("Searching", total, "epoch") as task, executor.show(task) as board:
                executor.run_trials(self.job, todo, session.shared_teacher, images, board)

    def _decoder(self, trial: Trial) -> Callable[[str], Architecture]:
        return partial(self.session.architecture, trial.space.model_dump(mode="json"))

    def _trials_and_finalists(self) -> tuple[list[ComparedTrial], dict[str, Architecture]]:
        """Return all trials, and their finalists by `name_of`."""
        trials = [ComparedTrial.of(result) for result in self.job.results()]
        found = {
            name_of(trial, finalist.genotype): self.session.architecture(trial.space_config, finalist.genotype)
            for trial in trials
            for finalist in trial.finalists
        }
        return trials, found

    def _choose(self, images: Shared[SyntheticImages]) -> list[ComparedTrial]:
        """Return the trials, each with its best finalist as its result."""
        trials, found = self._trials_and_finalists()
        if len(found) < 2:
            return trials
        self._compare(found, images)
        scores = {name: self._scores[name] for name in found}
        check_some_trained(scores, self.config.selection.optimizer.lr)
        return [trial.compared(found, scores) for trial in trials]

    def _compare(self, found: dict[str, Architecture], images: Shared[SyntheticImages]) -> None:
        """Train each architecture alone, unless it has been trained before."""
        session, todo = self.session, list(self.unscored_finalists())
        work = Work("search", "architecture", TrainAlone(self.job, found, session.shared_teacher, images))
        with session.listener.task("Training each finalist alone", len(found), "architecture") as task:

            def on_scored(name: str, score: float) -> None:
                self.keep_score(name, score)
                task.advance_to(len(self._scores))

            session.executor.map_all(work, todo, on_scored)

    def _files(self) -> dict[str, str]:
        """Return the digests of the files that algorithms read, by name."""
        files = {file for algorithm in self.config.algorithm for file in algorithm.files}
        try:
            return {file: sha256(Location.parse(file).read_bytes()).hexdigest() for file in sorted(files)}
        except StorageError:
            self._check_files()  # it names the setting
            raise
