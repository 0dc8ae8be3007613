"""Images of another source than synthesis, stored as ordinary shards: for comparison, or if a team has its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TypeAlias

import torch

from dfnas_ray import formatting
from dfnas_ray.execution.base import Executor, Work
from dfnas_ray.sources.base import Drawn, DrawnSource, SetSize, SourceConfig, labelled
from dfnas_ray.sources.synthetic import SyntheticSource, shuffle_labels
from dfnas_ray.storage.location import Count, JsonObject, Location
from dfnas_ray.storage.manifest import Manifest, ManifestEntry
from dfnas_ray.storage.run_dir import fingerprint
from dfnas_ray.storage.shard_sets import intact_shards
from dfnas_ray.storage.shards import ShardInfo, SyntheticImages, encode_shard, manifest_entry, shard_name
from dfnas_ray.storage.shared import Shared
from dfnas_ray.synthesis.job import TeacherLabel
from dfnas_ray.teachers.base import Teacher
from dfnas_ray.teachers.class_names import unique_names
from dfnas_ray.workflow.session import Session
from dfnas_ray.workflow.stage import Record, Stage
from dfnas_ray.workflow.synthesis import Synthesis

_AT_ONCE = 4
"""The number of drawn shards that wait for labels. It limits the memory that a set of any size takes."""


class SourceRecord(Record):
    """A finished set.

    Attributes:
        source: The name of the images in tables.
        data_free: Whether they were made without real images.
    """

    source: str
    data_free: bool
    images: Count
    shards: Count

    @property
    def headline(self) -> str:
        """See `Record`."""
        return f"{self.images:,} images, {self.source}"

    def detail(self, folder: Location) -> str:
        """See `Record`."""
        return formatting.plural(self.shards, "shard")


@dataclass(frozen=True)
class LabelShards:
    """The work on drawn shards: the teacher labels them, and they are committed."""

    teacher: Shared[Teacher]
    drawn: dict[int, Shared[Drawn]]
    label: TeacherLabel
    key: str
    num_shards: int
    folder: Location

    def __call__(self, device: torch.device) -> Callable[[int], ManifestEntry]:
        """Return the function that labels and commits one shard."""
        teacher = self.teacher.get().to(device)

        def commit(shard: int) -> ManifestEntry:
            images = labelled(teacher, self.drawn[shard].get(), shard)
            shape = list(self.label.image_shape)
            info = ShardInfo(self.key, shard, self.num_shards, self.label.fingerprint, [], image_shape=shape)
            names = unique_names(images.logits.shape[1], self.label.class_names)
            data = encode_shard(info, images.images, images.labels, images.rounds, images.logits, names)
            (self.folder / shard_name(shard)).write_bytes(data)
            return manifest_entry(shard, data, len(images))

        return commit


class SourceImages(Stage[SourceRecord]):
    """The stage that makes shards and a manifest from drawn images, in the format of synthesis."""

    name = "images"
    title = "Images"
    record = SourceRecord
    uses_code_of = ("search.images", "retraining.images")
    workers = "synthesis"

    def __init__(self, session: Session, config: DrawnSource, setting: str, seed: int | None = None):
        """Set up the images of a source.

        Args:
            session: The session of the command.
            config: The settings of the source.
            setting: The name of these settings, for error messages.
            seed: The root seed; by default the experiment's.
        """
        super().__init__(session, is_own=False)
        self.config, self.setting = config, setting
        self.seed = session.config.seed if seed is None else seed

    @property
    def size(self) -> SetSize:
        """The size of the set."""
        return self.config.size(synthetic_size(self.session), self.setting)

    def inputs(self) -> JsonObject:
        """See `Stage`."""
        return {
            "teacher": self.session.teacher.fingerprint,
            "seed": self.seed,
            "source": self.config.model_dump(mode="json"),
            "size": asdict(self.size),
            **self.config.inputs(self.session.teacher, self.setting),
        }

    def check(self) -> None:
        """Find missing files, labels of other classes, and sets that are too small."""
        self.config.drawer(self.session.teacher, self.size, self.seed, self.setting)

    @property
    def canvas_size(self) -> tuple[int, int]:
        """See `ImageSource`."""
        _, height, width = self.size.canvas
        return height, width

    def images(self, executor: Executor) -> Shared[SyntheticImages]:
        """See `ImageSource`."""
        return self.session.images(self.location)

    def work(self) -> SourceRecord:
        """See `Stage`."""
        session, size = self.session, self.size
        entries = intact_shards(self.location, self.key, size.shards, session.listener.say)
        todo = [shard for shard in range(size.shards) if shard not in entries]
        drawer = self.config.drawer(session.teacher, size, self.seed, self.setting)
        executor, label = session.executor, TeacherLabel.of(session.teacher)
        with session.listener.task(f"Preparing {self.config.description} images", size.shards, "shard") as task:
            for start in range(0, len(todo), _AT_ONCE):
                some = todo[start : start + _AT_ONCE]
                drawn = {shard: executor.share(drawer(shard)) for shard in some}
                step = LabelShards(session.shared_teacher, drawn, label, self.key, size.shards, self.location)
                executor.map_all(Work("synthesis", "shard", step), some, entries.__setitem__)
                task.advance_to(len(entries))
        manifest = Manifest(key=self.key, shards=tuple(entries[shard] for shard in range(size.shards)))
        manifest.write(self.location)
        source, data_free = self.config.description, self.config.is_data_free
        return SourceRecord(source=source, data_free=data_free, images=manifest.rows, shards=size.shards)


class ShuffledSynthesis:
    """The synthetic images, each with the labels of another image."""

    name = "shuffled"

    def __init__(self, synthesis: Synthesis):
        self.synthesis = synthesis

    @property
    def key(self) -> str:
        """See `ImageSource`."""
        return fingerprint([self.synthesis.key, self.name])

    @property
    def canvas_size(self) -> tuple[int, int]:
        """See `ImageSource`."""
        return self.synthesis.canvas_size

    def images(self, executor: Executor) -> Shared[SyntheticImages]:
        """See `ImageSource`."""
        synthesis = self.synthesis
        return synthesis.session.kept(
            self.key, lambda: executor.compute(shuffle_labels, synthesis.images(executor), synthesis.seed)
        )

    def check(self) -> None:
        """See `Stage`."""
        self.synthesis.check()

    def finish(self) -> object:
        """Finish the synthesis."""
        return self.synthesis.finish()


ImagesStage: TypeAlias = Synthesis | SourceImages | ShuffledSynthesis
"""A source of images for a search or a retraining."""


def images_of(session: Session, config: SourceConfig, setting: str, seed: int | None = None) -> ImagesStage:
    """Return the stage that makes the images of a source.

    Args:
        session: The session of the command.
        config: The settings of the source.
        setting: The name of these settings, for error messages.
        seed: The root seed; by default the experiment's.
    """
    if isinstance(config, DrawnSource):
        return SourceImages(session, config, setting, seed)
    assert isinstance(config, SyntheticSource), "a source draws its images, or they are synthetic"
    synthesis = Synthesis(session, seed)
    return synthesis if config.labels == "teacher" else ShuffledSynthesis(synthesis)


def synthetic_size(session: Session) -> SetSize:
    """Return the size of the experiment's synthetic set."""
    return session.config.synthesis.size(session.teacher.image_shape)
