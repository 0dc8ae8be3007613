"""Truth: many architectures of a space are trained on real, labelled images, and measured on others.

The result is a table for benchmarks. Nothing of it is data-free.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import torch

from dfnas_ray import formatting
from dfnas_ray.config.experiment import ExperimentConfig, evaluation_dataset
from dfnas_ray.datasets.base import open_dataset
from dfnas_ray.errors import ConfigError
from dfnas_ray.execution.base import Work
from dfnas_ray.ranking.truth import RecordedTruth, TrainedChunk, TrueFigures, truth_table
from dfnas_ray.search_spaces.base import Genotype, SearchSpace
from dfnas_ray.search_spaces.contract import build_space
from dfnas_ray.seeding import numpy_generator
from dfnas_ray.storage.location import Count, JsonObject, Location
from dfnas_ray.storage.run_dir import StageDir
from dfnas_ray.storage.shards import SyntheticImages
from dfnas_ray.storage.shared import Shared
from dfnas_ray.teachers.base import Teacher
from dfnas_ray.training.device_images import DeviceImages
from dfnas_ray.training.evaluation import LabelledImages, decode_all, grade, normalised
from dfnas_ray.training.retraining import RetrainingJob, train_at_once, training_batches
from dfnas_ray.workflow.evaluation import NOT_DATA_FREE, check_dataset
from dfnas_ray.workflow.images import images_of
from dfnas_ray.workflow.session import Session
from dfnas_ray.workflow.stage import Record, Stage

MOST_UNASKED = 100_000
"""The largest space of which all architectures are trained if no number is given."""

TABLE = "truth.csv"
"""The table's name in the stage's folder."""

_CHUNK = 4  # architectures that are recorded together: the most that an interruption costs each worker
_CHUNKS_PER_WORKER = 4  # at least, so that all have something to do until the end

Texts: TypeAlias = tuple[str, ...]
"""Architectures that one task trains."""


class TruthRecord(Record):
    """A finished truth stage.

    Attributes:
        space: The kind of the search space.
        architectures: The number of architectures that were trained.
        in_space: The number of architectures in the space.
        trained_on: The name in tables of the images that they learned from.
        dataset: The dataset on which they were measured.
        images: The number of its images.
        best: The text of the best architecture.
        accuracy: The accuracy of the best architecture, in [0, 1].
        worst_accuracy: The accuracy of the worst architecture.
        data_free: Always False: real images and their labels were used.
    """

    space: str
    architectures: Count
    in_space: int
    trained_on: str
    dataset: str
    images: Count
    best: str
    accuracy: float
    worst_accuracy: float
    data_free: Literal[False] = False

    @property
    def headline(self) -> str:
        """See `Record`."""
        span = f"{self.worst_accuracy:.2%} to {self.accuracy:.2%}"
        return f"{formatting.plural(self.architectures, 'architecture')}: {span} ({NOT_DATA_FREE})"

    def detail(self, folder: Location) -> str:
        """See `Record`."""
        return (
            f"{formatting.plural(self.architectures, 'architecture')}, {formatting.plural(self.images, 'real image')}"
        )


@dataclass(frozen=True)
class TrainArchitectures:
    """Training and measurement of architectures, a few of them at a time.

    Attributes:
        job: The training job, in which the architecture is replaced.
        measured_on: Decoded images with their labels.
    """

    job: RetrainingJob
    teacher: Shared[Teacher]
    images: Shared[SyntheticImages]
    measured_on: Shared[list[LabelledImages]]
    architectures: Mapping[str, Genotype]

    def __call__(self, device: torch.device) -> Callable[[Texts], TrainedChunk]:
        """Return the function that trains and measures some architectures."""
        teacher = self.teacher.get()
        batches = training_batches(self.job, teacher, DeviceImages(self.images.get(), device))
        measured = normalised(self.measured_on.get(), teacher, device)

        def train(texts: Texts) -> TrainedChunk:
            started, figures = time.monotonic(), dict[str, TrueFigures]()
            for text in texts:
                network = train_at_once(replace(self.job, genotype=self.architectures[text]), batches)
                figures[text] = TrueFigures.of(grade(network, measured))
            return TrainedChunk(seconds=round(time.monotonic() - started, 3), figures=figures)

        return train


def check_truth(config: ExperimentConfig, architectures: int | None) -> None:
    """Check the settings as far as possible without the teacher.

    Raises:
        ConfigError: there are several spaces, the images are not real ones with labels, there is nothing to measure on, or
            it is not clear how many architectures are meant.
    """
    if len(config.search.space) > 1:
        raise ConfigError(
            f"search.space lists {len(config.search.space)} spaces, and a table of true accuracies belongs to one. Leave one "
            "alone there."
        )
    retraining = config.retraining
    if retraining.images.is_data_free:
        raise ConfigError(
            f"retraining.images ({retraining.images.kind}) are not real, and the truth about architectures is what they reach "
            "when they are trained on real, labelled images. Set\nallow_real_images: true\nretraining:\n  images: {kind: real, "
            "dataset: {kind: image_folder, path: PATH}, num_images: all}\n  labels: {weight: 1}"
        )
    if retraining.labels is None:
        raise ConfigError(
            "retraining.labels is not set, and the truth about architectures is what they reach when they are trained on "
            "labels. Set retraining.labels, for instance to {weight: 1, smoothing: 0.1}."
        )
    if retraining.num_workers > 1:
        raise ConfigError(
            f"retraining.num_workers ({retraining.num_workers}) would share each training, and here many networks are trained "
            "side by side, each by one worker. Set it to 1."
        )
    evaluation_dataset(config)
    space = config.search.space[0]
    total = build_space(space, *space.native_input).num_architectures
    if architectures is None and total > MOST_UNASKED:
        raise ConfigError(
            f"The search space {space.kind} has {total:,} architectures with these settings, and each would be trained. Say how "
            "many are to be drawn, for instance --architectures 200."
        )
    if architectures is not None and not 1 <= architectures <= total:
        raise ConfigError(
            f"--architectures ({architectures:,}) must be between 1 and the {total:,} that the search space {space.kind} has."
        )


class Truth(Stage[TruthRecord]):
    """The stage that makes a table of true accuracies and negative log likelihoods: ``truth.csv``.

    Results are kept beside the stage, one chunk at a time. Any later stage with the same settings uses them, for any
    number of architectures.
    """

    name = "truth"
    title = "Truth"
    record = TruthRecord
    uses_code_of = ("search.space", "retraining")
    workers = "retraining"
    has_own_command = True

    def __init__(self, session: Session, architectures: int | None = None):
        """Set the number of architectures; None for all."""
        super().__init__(session)
        check_truth(session.config, architectures)
        self.number = architectures
        self.source = images_of(session, session.config.retraining.images, "retraining.images")
        self.dataset = open_dataset(evaluation_dataset(session.config))

    @property
    def space(self) -> SearchSpace:
        """The only search space."""
        return self.session.spaces[0]

    def inputs(self) -> JsonObject:
        """See `Stage`."""
        return {**self._training_inputs(), "architectures": self.number}

    def check(self) -> None:
        """Find settings that do not fit the teacher, before anything is made."""
        self.source.check()
        check_dataset(self.dataset, self.session.teacher)
        if not self.is_done:
            self.session.executor.check_fits("retraining")

    @property
    def num_missing(self) -> int:
        """Architectures that no command has trained yet."""
        architectures, folder = self._architectures(), self._trained_dir()
        if not folder.location.exists():
            return len(architectures)
        return len(RecordedTruth(folder.location, self.session.listener.say).missing(architectures))

    def work(self) -> TruthRecord:
        """See `Stage`."""
        session, space = self.session, self.space
        architectures = self._architectures()
        folder = self._trained_dir()
        folder.begin()
        recorded = RecordedTruth(folder.location, session.listener.say)
        if missing := recorded.missing(architectures):
            self._train(recorded, missing, architectures)
        (self.location / TABLE).write_bytes(truth_table(space, list(architectures), recorded.figures))
        by_accuracy = sorted(architectures, key=lambda text: recorded.figures[text].accuracy)
        worst, best = by_accuracy[0], by_accuracy[-1]
        return TruthRecord(
            space=space.kind,
            architectures=len(architectures),
            in_space=space.num_architectures,
            trained_on=session.config.retraining.images.description,
            dataset=self.dataset.description,
            images=len(self.dataset),
            best=best,
            accuracy=recorded.figures[best].accuracy,
            worst_accuracy=recorded.figures[worst].accuracy,
        )

    def _train(self, recorded: RecordedTruth, missing: list[str], architectures: Mapping[str, Genotype]) -> None:
        """Train the missing architectures, and record their figures."""
        session, executor = self.session, self.session.executor
        self.source.finish()
        if there := len(architectures) - len(missing):
            session.listener.say(f"truth: {there:,} of {len(architectures):,} architectures are trained already.")
        config = session.config
        job = RetrainingJob(
            config.retraining,
            config.cluster.retraining,
            config.seed,
            self.space,
            architectures[missing[0]],
            config.search.validation_fraction,
            self.location,
        )
        step = TrainArchitectures(
            job,
            session.shared_teacher,
            self.source.images(executor),
            executor.share(decode_all(self.dataset, session.teacher)),
            {text: architectures[text] for text in missing},
        )
        room = executor.room_for(config.cluster.retraining)
        size = max(1, min(_CHUNK, len(missing) // (_CHUNKS_PER_WORKER * room)))
        chunks = [tuple(missing[start : start + size]) for start in range(0, len(missing), size)]
        trained = 0
        with session.listener.task("Training on real images", len(missing), "architecture") as task:

            def record(texts: Texts, chunk: TrainedChunk) -> None:
                nonlocal trained
                recorded.add(chunk)
                trained += len(texts)
                task.advance_to(trained)

            executor.map_all(Work("retraining", "training of", step), chunks, record)

    def _architectures(self) -> dict[str, Genotype]:
        """Return all architectures, or the drawn ones, by their texts, in the order of the space."""
        if self.number is None:
            chosen = list(self.space.all_architectures())
        else:
            rng = numpy_generator(self.session.config.seed, "truth-sample")
            chosen = sorted(self.space.sample_distinct(rng, self.number))
        return {self.space.encode(genotype): genotype for genotype in chosen}

    def _training_inputs(self) -> JsonObject:
        """Return all inputs on which the figures of one architecture depend."""
        config = self.session.config
        return {
            "upstream": {self.source.name: self.source.key},
            "seed": config.seed,
            "space": config.search.space[0].model_dump(mode="json"),
            "search": {"validation_fraction": config.search.validation_fraction},
            "retraining": config.retraining.settings,
            "threads": config.cluster.retraining.cpus,
            "dataset": evaluation_dataset(config).model_dump(mode="json"),
            "files": self.session.teacher.resizing.keyed(self.dataset.fingerprint),
        }

    def _trained_dir(self) -> StageDir:
        inputs = self._training_inputs() | self.session.own_code(*self.uses_code_of)
        return self.session.run_dir.stage("trained", inputs)
