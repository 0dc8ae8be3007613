"""Synthesis: from the teacher to a set of images, shard by shard."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import TypeAlias

import numpy as np

from dfnas_ray import formatting
from dfnas_ray.errors import SynthesisError
from dfnas_ray.execution.base import Crew, Executor, Work
from dfnas_ray.storage.location import Count, JsonObject, Location, Seconds
from dfnas_ray.storage.manifest import Manifest, ManifestEntry
from dfnas_ray.storage.run_dir import flat
from dfnas_ray.storage.shard_sets import intact_shards
from dfnas_ray.storage.shards import SyntheticImages, read_info, shard_name
from dfnas_ray.storage.shared import Shared
from dfnas_ray.synthesis.checks import check_synthesis
from dfnas_ray.synthesis.job import ShardJob, TeacherLabel
from dfnas_ray.synthesis.quality import Quality, QualityReport
from dfnas_ray.synthesis.students import lost_students, student_agreement, write_students
from dfnas_ray.synthesis.verdict import Verdict, judge
from dfnas_ray.synthesis.work import MakeShards, MeasureQuality
from dfnas_ray.teachers.facts import TeacherFacts
from dfnas_ray.workflow.events import EventLog
from dfnas_ray.workflow.session import Session
from dfnas_ray.workflow.stage import Record, Stage

Entries: TypeAlias = dict[int, ManifestEntry]
"""Entries of the manifest, by the number of the shard."""


class SynthesisRecord(Record):
    """A finished set.

    Attributes:
        made_now: The number of shards that the last command made; the others existed.
        actors: The number of workers that made them.
        bytes: The size of all shards.
        quality: The quality measures of the whole set.
        verdict: The verdict on these measures; None in records of older versions.
        seconds_beside_search: The part of the time that the search counts as well.
    """

    images: Count
    shards: Count
    made_now: Count
    actors: Count
    bytes: Count
    quality: Quality
    teacher: TeacherFacts
    verdict: Verdict | None = None
    seconds_beside_search: Seconds | None = None

    @property
    def headline(self) -> str:
        """See `Record`."""
        return f"{self.images:,} images in {formatting.plural(self.shards, 'shard')}"

    @property
    def remarks(self) -> tuple[str, ...]:
        """See `Record`."""
        return self.verdict.lines if self.verdict is not None else ()

    def detail(self, folder: Location) -> str:
        """See `Record`."""
        parts = [formatting.plural(self.shards, "shard"), formatting.size(self.bytes)]
        if self.actors:
            parts.append(formatting.plural(self.actors, "actor"))
        if self.made_now < self.shards:
            made_now = formatting.plural(self.made_now, "shard")
            parts.append(f"the time of the last {made_now}; the others were there already")
        elif self.images and self.seconds:
            parts.append(f"{formatting.number(self.images / self.seconds)} images/s")
        if self.seconds_beside_search:
            parts.append(f"{formatting.duration(self.seconds_beside_search)} of it beside the search")
        return ", ".join(parts)


class Synthesis(Stage[SynthesisRecord]):
    """The stage that makes Parquet shards and a manifest, and measures the quality of the images."""

    name = "synthesis"
    title = "Synthesis"
    record = SynthesisRecord
    uses_code_of = ("synthesis",)
    workers = "synthesis"

    def __init__(self, session: Session, seed: int | None = None):
        """Set up the images of a root seed.

        Args:
            session: The session of the command.
            seed: The root seed; by default the experiment's. Reports do not show the set of another one.
        """
        self.seed = session.config.seed if seed is None else seed
        super().__init__(session, self.seed == session.config.seed)
        self.config = session.config.synthesis
        self._intact: Entries | None = None
        self._lost: list[int] | None = None  # shards whose students must be made again

    def inputs(self) -> JsonObject:
        """See `Stage`."""
        return {
            "teacher": self.session.teacher.fingerprint,
            "seed": self.seed,
            "synthesis": self.config.model_dump(mode="json"),
        }

    def check(self) -> None:
        """See `Stage`."""
        check_synthesis(self.session.teacher, self.config, self.config.method)

    def read(self) -> SynthesisRecord | None:
        """Return the record if the manifest and every shard exist and are intact."""
        record = super().read()
        if record is None or self._intact is not None:
            return record
        missing = self.missing()
        if missing:
            self.session.listener.say(f"Shards {missing} are missing or damaged and are made again.")
        elif Manifest.find_unaltered(self.location) != Manifest(
            key=self.key, shards=tuple(self.intact[n] for n in sorted(self.intact))
        ):
            self.session.listener.say(f"{self.location}/manifest.json is written again from the shards.")
        else:
            return record
        self.check_fits()
        self.dir.reopen()
        return None

    def images(self, executor: Executor) -> Shared[SyntheticImages]:
        """Return the images of the finished set, read once for all stages."""
        return self.session.images(self.location)

    @property
    def canvas_size(self) -> tuple[int, int]:
        """See `ImageSource`."""
        height, width = self.session.teacher.image_shape[1:]
        return self.config.canvas_size(height, width)

    @property
    def intact(self) -> Entries:
        """The manifest entries of the shards that are committed and intact. Messages name damaged ones."""
        if self._intact is None:
            self._intact = intact_shards(self.location, self.key, self.config.num_shards, self.session.listener.say)
        return self._intact

    @property
    def job(self) -> ShardJob:
        """The settings that all shards have in common."""
        return ShardJob(self.config, self.seed, self.key, TeacherLabel.of(self.session.teacher), self.location)

    @property
    def num_students(self) -> int:
        """The number of students that are trained beside the images."""
        return len(self.job.ends) if self.config.method.has_student else 0

    def missing(self) -> list[int]:
        """Return the numbers of the shards that must still be made."""
        if self._lost is None:
            self._lost = (
                lost_students(self.job, self.session.listener.say) if len(self.intact) == self.config.num_shards else []
            )
        return [shard for shard in range(self.config.num_shards) if shard not in self.intact or shard in self._lost]

    def work(
        self, crew: Crew | None = None, on_made: Callable[[int, ManifestEntry], object] = lambda shard, entry: None
    ) -> SynthesisRecord:
        """Make the missing shards, and describe the set.

        Args:
            crew: The workers; by default as many as the cluster has room for.
            on_made: Called with a shard and its entry as soon as it is committed.

        Raises:
            SynthesisError: some shards cannot be made. The message names them. The others are committed.
        """
        session, config, todo, entries = self.session, self.config, self.missing(), dict(self.intact)
        if not todo:
            return self.describe(entries, 0, 0)
        self.check()
        if entries:
            session.listener.say(f"synthesis: {len(entries)} of {config.num_shards} shards are there already.")
        executor, resources = session.executor, session.config.cluster.synthesis
        job = self.job
        missing, todo = set(todo), job.to_make(todo)
        after = {shard: before for shard in todo if (before := job.predecessor(shard)) is not None}
        side_by_side = sum(after.get(shard) not in todo for shard in todo)
        crew = crew or Crew(min(side_by_side, resources.actors or executor.room_for(resources)))
        total = config.image_steps(todo)

        def take(shard: int, entry: ManifestEntry) -> None:
            entries[shard] = entry
            if shard in missing:
                on_made(shard, entry)

        with session.listener.task("Synthesizing", total, "image step") as task, executor.show(task) as board:
            work = Work(
                "synthesis",
                "shard",
                MakeShards(session.shared_teacher, job, board),
                "give a worker more memory or fewer images (synthesis.method.batch_size)",
            )
            failed = executor.map(work, todo, take, crew, after)
        if crew.should_stop():
            raise SynthesisError("The synthesis was stopped before all shards were made.")
        if failed:
            listed = "; ".join(f"shard {shard}: {reason}" for shard, reason in sorted(failed.items())[:3])
            raise SynthesisError(
                f"{len(failed)} of {config.num_shards} shards could not be made ({listed}). The other shards are kept; "
                "change the setting that is named, or run the same command again for these shards alone."
            )
        return self.describe(entries, len(todo), crew.size or 1)

    def describe(self, entries: Entries, made_now: int, num_actors: int) -> SynthesisRecord:
        """Write the finished set's manifest, measure its quality, and return the record.

        Args:
            entries: The entries of all shards.
            made_now: The number of shards that this command made.
            num_actors: The number of workers that made them.
        """
        session, num_shards = self.session, self.config.num_shards
        manifest = Manifest(key=self.key, shards=tuple(entries[shard] for shard in range(num_shards)))
        manifest.write(self.location)
        write_students(self.job, session.teacher)
        self.job.delete_states()
        measured: dict[str, QualityReport] = {}
        measure = MeasureQuality(session.shared_teacher, self.images(session.executor))
        work = Work("synthesis", "measurement of the images", measure)
        session.executor.map_all(work, ["quality"], measured.__setitem__)
        quality = measured["quality"]
        followed = student_agreement(self.job)
        if followed is not None:
            quality = quality.model_copy(update={"overall": {**quality.overall, "student_agreement": followed}})
        quality.write(self.location)
        verdict = judge(quality, session.teacher, self.config)
        if verdict.findings and self.is_own:
            for line in verdict.lines:
                session.listener.say(line)
        return SynthesisRecord(
            images=manifest.rows,
            shards=num_shards,
            made_now=made_now,
            actors=num_actors,
            bytes=manifest.bytes,
            quality=quality.overall,
            verdict=verdict,
            teacher=TeacherFacts.of(session.teacher),
        )

    def log(self, record: SynthesisRecord, events: EventLog) -> None:
        """See `Stage`: the loss terms of up to 16 shards, images of the first one, and a row of hyper-parameters."""
        shards = range(0, self.config.num_shards, -(-self.config.num_shards // _LOGGED_SHARDS))
        for shard in shards:
            with events.run(f"shard-{shard:05d}") as run:
                rounds = read_info(self.location / shard_name(shard)).curves
                for step, point in enumerate(chain.from_iterable(rounds), 1):
                    for name, value in point["losses"].items():
                        run.scalar(f"loss/{name}", value, step)
        with events.run() as run:
            images = self.job.images(0)
            some = np.argsort(images.labels[:_LOGGED_IMAGES], kind="stable")
            run.images("images", images.images[:_LOGGED_IMAGES][some], columns=10)
            run.hyperparameters(flat(self.config.model_dump(mode="json")), record.quality)


_LOGGED_SHARDS = 16
_LOGGED_IMAGES = 100
