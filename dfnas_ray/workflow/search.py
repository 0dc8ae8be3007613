"""Search: every algorithm in every space with every seed, and the best of all finalists."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
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
from dfnas_ray.errors import ConfigError
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
    """The best trial, and all of them.

    Attributes:
        max_macs: The limit that all kept to.
        images: What they looked at.
        data_free: Whether these could be had without real images.
    """

    space_config: JsonObject
    max_macs: Count | None = None
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
    """Trials with their states and results, the comparison of their finalists, and the choice."""

    name = "search"
    title = "Search"
    record = SearchRecord
    workers = "search"

    def __init__(self, session: Session, source: ImageSource | None = None):
        """Search on images.

        Args:
            session: The command.
            source: Of the images; by default what `search.images` says.
        """
        super().__init__(session)
        self.config = session.config.search
        self.source = images_of(session, self.config.images, "search.images") if source is None else source

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
        """Find a limit that no architecture keeps to, what the executor does not do, and files that cannot be used."""
        teacher = self.session.teacher
        _ = self.session.max_macs
        if self.session.config.cluster.is_inline and not self.is_done:
            for each in self.config.algorithm:
                if each.needs_many_workers:
                    raise ConfigError(each.needs_many_workers)
        for algorithm, config in self.config.pairs:
            if algorithm.files:
                algorithm.check_files(config.space(teacher.image_shape, teacher.num_classes))

    def read(self) -> SearchRecord | None:
        """Return the record, if the trials are described beside it."""
        record = super().read()
        if record is None or ComparedTrials.are_intact(self.location, self.session.listener.say):
            return record
        self.dir.reopen()
        return None

    def num_workers(self) -> int:
        """A trial, and the places where its candidates are scored."""
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
        job = self._run(images, list(self.config.trials))
        trials = self._choose(job, [ComparedTrial.of(result) for result in job.results()], images)
        best = max(trials, key=lambda trial: trial.merit)
        ComparedTrials(tuple(trials)).write(self.location)
        return SearchRecord(
            **best.model_dump(exclude={"history", "arrivals"}),
            max_macs=self.session.max_macs,
            images=self.config.images.description,
            data_free=self.config.images.is_data_free,
            trials=tuple(trial.summary() for trial in trials),
        )

    def go_ahead(self, images: ShardFolder) -> None:
        """Let every trial go as far as it can while its images are being made; `work` goes on from there."""
        self._run(images, [trial for trial in self.config.trials if trial.algorithm.trains_by_epochs])

    def _run(self, images: Shared[SyntheticImages] | ShardFolder, trials: list[Trial]) -> SearchJob:
        """Run those of the trials that have no result yet."""
        session, config = self.session, self.config
        job = SearchJob(config, session.config.cluster.search, session.config.seed, session.max_macs, self.location)
        todo = [trial for trial in trials if not job.is_over(trial, session.listener.say, self._decoder(trial))]
        if todo:
            executor = session.executor
            total = sum(trial.algorithm.steps_to_show for trial in config.trials)
            with session.listener.task("Searching", total, "epoch") as task, executor.show(task) as board:
                executor.run_trials(job, todo, session.shared_teacher, images, board)
        return job

    def _decoder(self, trial: Trial) -> Callable[[str], Architecture]:
        return partial(self.session.architecture, trial.space.model_dump(mode="json"))

    def _choose(
        self, job: SearchJob, trials: list[ComparedTrial], images: Shared[SyntheticImages]
    ) -> list[ComparedTrial]:
        """Return the trials, each with its best finalist as its result."""
        found = {
            name_of(trial, finalist.genotype): self.session.architecture(trial.space_config, finalist.genotype)
            for trial in trials
            for finalist in trial.finalists
        }
        if len(found) < 2:
            return trials
        scores = self._compare(job, found, images)
        check_some_trained(scores, self.config.selection.optimizer.lr)
        return [trial.compared(found, scores) for trial in trials]

    def _compare(
        self, job: SearchJob, found: dict[str, Architecture], images: Shared[SyntheticImages]
    ) -> dict[str, float]:
        """Train each architecture alone; what was compared before is kept in ``comparison.json`` and not done again."""
        session, file = self.session, self.location / "comparison.json"
        scores = ComparedScores.read(self.location, session.listener.say)
        todo = [name for name in found if name not in scores]
        work = Work("search", "architecture", TrainAlone(job, found, session.shared_teacher, images))
        with session.listener.task("Training each finalist alone", len(found), "architecture") as task:

            def on_scored(name: str, score: float) -> None:
                scores[name] = score
                file.write_json(scores)
                task.advance_to(len(scores))

            session.executor.map_all(work, todo, on_scored)
        return {name: scores[name] for name in found}

    def _files(self) -> dict[str, str]:
        """Return the digests of the files that algorithms read, by name."""
        files = {file for algorithm in self.config.algorithm for file in algorithm.files}
        return {file: sha256(Location.parse(file).read_bytes()).hexdigest() for file in sorted(files)}
