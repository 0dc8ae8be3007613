"""Synthesis: from the teacher to a set of images, shard by shard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from pydantic import BaseModel, ConfigDict

from dfnas_ray.errors import ShardError, SynthesisError
from dfnas_ray.execution.base import Crew, Executor, Shared, Work
from dfnas_ray.progress import Board
from dfnas_ray.storage.location import JsonObject
from dfnas_ray.storage.manifest import Manifest, ManifestEntry
from dfnas_ray.storage.shards import SyntheticImages, decode_shard, manifest_entry, shard_name, verify_entry
from dfnas_ray.synthesis.checks import check_synthesis
from dfnas_ray.synthesis.inversion import Inverter
from dfnas_ray.synthesis.job import ShardJob
from dfnas_ray.synthesis.quality import measure_quality
from dfnas_ray.synthesis.shard import synthesize_rounds
from dfnas_ray.teachers.base import ImageShape, Teacher
from dfnas_ray.workflow.session import Session
from dfnas_ray.workflow.stage import Record, Stage

Entries: TypeAlias = dict[int, ManifestEntry]
"""Lines of the manifest, by the number of the shard."""

Quality: TypeAlias = dict[str, float]
"""The measures of `synthesis.quality`, by name."""


class TeacherFacts(BaseModel):
    """What a report says of the teacher."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    params: int
    macs: int
    image_shape: ImageShape
    num_classes: int

    @classmethod
    def of(cls, teacher: Teacher) -> TeacherFacts:
        """Return those of a teacher."""
        return cls(
            name=teacher.name,
            params=teacher.cost.params,
            macs=teacher.cost.macs,
            image_shape=teacher.image_shape,
            num_classes=teacher.num_classes,
        )


class SynthesisRecord(Record):
    """A finished set.

    Attributes:
        made_now: Shards that the last command made; the others were there.
        actors: By so many workers.
        bytes: Of all files.
        quality: Of the whole set.
        seconds_beside_search: Of the time, what the search counts as well.
    """

    images: int
    shards: int
    made_now: int
    actors: int
    bytes: int
    quality: Quality
    teacher: TeacherFacts
    seconds_beside_search: float | None = None


class Synthesis(Stage[SynthesisRecord]):
    """Parquet shards, a manifest, and their quality."""

    name = "synthesis"
    title = "Synthesis"
    record = SynthesisRecord
    workers = "synthesis"

    def __init__(self, session: Session, seed: int | None = None):
        """Take a root seed's images.

        Args:
            session: The command.
            seed: By default the experiment's; another one's set is not the one that reports show.
        """
        self.seed = session.config.seed if seed is None else seed
        super().__init__(session, self.seed == session.config.seed)
        self.config = session.config.synthesis
        self._intact: Entries | None = None

    def inputs(self) -> JsonObject:
        """See `Stage`."""
        return {
            "teacher": self.session.teacher.fingerprint,
            "seed": self.seed,
            "synthesis": self.config.model_dump(mode="json"),
        }

    def check(self) -> None:
        """See `Stage`."""
        check_synthesis(self.session.teacher, self.config)

    def read(self) -> SynthesisRecord | None:
        """Return the record, if every shard is there and intact."""
        record = super().read()
        if record is not None and self._intact is None:
            missing = self.missing()
            if missing:
                self.session.listener.say(f"Shards {missing} are missing or damaged and are made again.")
                self.check_fits()
                self.dir.reopen()
                return None
        return record

    def images(self, executor: Executor) -> Shared[SyntheticImages]:
        """Return the images of the finished set, read once for all stages."""
        return self.session.images(self.location)

    @property
    def intact(self) -> Entries:
        """The manifest entries of the shards that are committed and intact; says which are not."""
        if self._intact is None:
            self._intact = self._find_intact()
        return self._intact

    def missing(self) -> list[int]:
        """Return the numbers of the shards that are still to be made."""
        return [shard for shard in range(self.config.num_shards) if shard not in self.intact]

    def work(
        self, crew: Crew | None = None, on_made: Callable[[int, ManifestEntry], object] = lambda shard, entry: None
    ) -> SynthesisRecord:
        """Make the missing shards, and describe the set.

        Args:
            crew: Who works; by default as many as have room.
            on_made: Called with a shard and its entry as soon as it is committed.

        Raises:
            SynthesisError: some shards cannot be made; names them. The others are committed.
        """
        session, config, todo, entries = self.session, self.config, self.missing(), dict(self.intact)
        if not todo:
            return self.describe(entries, 0, 0)
        self.check()
        if entries:
            session.listener.say(f"synthesis: {len(entries)} of {config.num_shards} shards are there already.")
        executor, resources = session.executor, session.config.cluster.synthesis
        crew = crew or Crew(min(len(todo), resources.actors or executor.room_for(resources)))
        job = ShardJob(config, self.seed, self.key, session.teacher.fingerprint, self.location)
        total = len(todo) * config.image_steps_per_shard

        def take(shard: int, entry: ManifestEntry) -> None:
            entries[shard] = entry
            on_made(shard, entry)

        with session.listener.task("Synthesizing", total, "image step") as task, executor.show(task) as board:
            work = Work(
                "synthesis",
                "shard",
                MakeShards(session.shared_teacher, job, board),
                "give a worker more memory or fewer images (synthesis.batch_size)",
            )
            failed = executor.map(work, todo, take, crew)
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
            entries: Of all shards.
            made_now: How many of them this command made.
            num_actors: By so many workers.
        """
        session, num_shards = self.session, self.config.num_shards
        manifest = Manifest(key=self.key, shards=tuple(entries[shard] for shard in range(num_shards)))
        manifest.write(self.location)
        quality: dict[str, Any] = {}
        measure = MeasureQuality(session.shared_teacher, self.images(session.executor))
        work = Work("synthesis", "measurement of the images", measure)
        session.executor.map_all(work, ["quality"], lambda _, measured: quality.update(measured))
        (self.location / "quality.json").write_json(quality)
        return SynthesisRecord(
            images=manifest.rows,
            shards=num_shards,
            made_now=made_now,
            actors=num_actors,
            bytes=manifest.bytes,
            quality=quality["overall"],
            teacher=TeacherFacts.of(session.teacher),
        )

    def _find_intact(self) -> Entries:
        listener = self.session.listener
        manifest = Manifest.find(self.location)
        expected = Manifest.by_shard(manifest.shards) if manifest is not None else {}
        intact = {}
        for shard in range(self.config.num_shards):
            file = self.location / shard_name(shard)
            if not file.exists():
                continue
            data = file.read_bytes()
            try:
                if shard in expected:
                    verify_entry(data, expected[shard], str(file))  # before anything of it is decoded
                info, images = decode_shard(data, self.key, str(file))
            except ShardError as error:
                listener.say(str(error))
                continue
            entry = manifest_entry(shard, data, len(images))
            if info.shard != shard or expected.get(shard, entry) != entry:
                listener.say(f"Shard {file} is not the one that was made. It is replaced.")
                continue
            intact[shard] = entry
        return intact


@dataclass(frozen=True)
class MakeShards:
    """The work on shards: synthesize, label and commit one at a time."""

    teacher: Shared[Teacher]
    job: ShardJob
    board: Board

    def __call__(self, device: torch.device) -> Callable[[int], ManifestEntry]:
        """Return the function that makes one shard."""
        inverter = Inverter(self.teacher.get(), self.job.config, device)

        def make(shard: int) -> ManifestEntry:
            write, done = self.board.writer(f"shard {shard}"), 0

            def on_steps(images: int) -> None:
                nonlocal done
                done += images
                write(done)

            *_, made = synthesize_rounds(inverter, self.job.seed, shard, on_steps)
            return self.job.commit(made, shard)

        return make


@dataclass(frozen=True)
class MeasureQuality:
    """The measurement of a finished set, where a worker holds it: the driver never does."""

    teacher: Shared[Teacher]
    images: Shared[SyntheticImages]

    def __call__(self, device: torch.device) -> Callable[[str], JsonObject]:
        """Return the function that measures."""
        return lambda _: measure_quality(self.teacher.get().to(device), self.images.get())
