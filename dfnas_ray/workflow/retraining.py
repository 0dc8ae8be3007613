"""Retraining: training of one architecture from scratch, and of a random one for comparison."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from dfnas_ray import formatting
from dfnas_ray.errors import ExportError
from dfnas_ray.progress import shorten
from dfnas_ray.search_spaces.architecture import Architecture
from dfnas_ray.storage.location import Count, JsonObject, Location, section
from dfnas_ray.storage.run_dir import flat
from dfnas_ray.storage.sealed import unsealed
from dfnas_ray.synthesis.quality import QualityReport
from dfnas_ray.training.export import (
    Format,
    NetworkDescription,
    load_network,
    network_is_intact,
    weights_file,
    write_network,
)
from dfnas_ray.training.export import History as History
from dfnas_ray.training.retraining import Retrained, RetrainingJob
from dfnas_ray.workflow.events import EventLog
from dfnas_ray.workflow.images import SourceImages, images_of
from dfnas_ray.workflow.session import Session
from dfnas_ray.workflow.stage import ImageSource, Record, Stage, of_other_images
from dfnas_ray.workflow.synthesis import Synthesis

_FEWEST_IMAGES = 20  # with fewer, the agreement says nothing


def chance_of(num_classes: int, images: int, largest_class: float = 0.0) -> float | None:
    """Return the agreement of a network that always predicts one class, plus two standard errors; None for few images.

    Args:
        num_classes: The number of the teacher's classes.
        images: The number of validation images.
        largest_class: The share of the images in the teacher's most frequent class, if it is known.
    """
    share = max(1 / num_classes, largest_class)
    return None if images < _FEWEST_IMAGES else round(share + 2 * (share * (1 - share) / images) ** 0.5, 6)


class RetrainingRecord(Record):
    """A trained network, and the figures of its last epoch.

    Attributes:
        images: The images that it learned from.
        data_free: Whether they were made without real images.
        chance: The agreement with the teacher up to which a network has learned nothing; None in records of older
            versions, or if there are too few images.
    """

    space_config: JsonObject
    genotype: str
    macs: Count
    params: Count
    loss: float
    validation_loss: float
    validation_agreement: float
    images: str = "synthetic"
    data_free: bool = True
    chance: float | None = None

    @property
    def remarks(self) -> tuple[str, ...]:
        """See `Record`."""
        if self.chance is None or self.validation_agreement > self.chance:
            return ()
        return (
            f"The network {shorten(self.genotype, 40)} has learned nothing: on images held out it agrees with its teacher in "
            f"{formatting.percent(self.validation_agreement)}, no more than by chance. Look at the images first; then raise "
            "retraining.epochs, or lower retraining.optimizer.lr.",
        )

    @property
    def headline(self) -> str:
        """See `Record`."""
        agrees = f"agrees with the teacher on {self.validation_agreement:.1%}"
        return f"{self.genotype}: {agrees}{of_other_images(self.images)}"

    def detail(self, folder: Location) -> str:
        """See `Record`."""
        epochs = len(History.read(folder))
        return formatting.plural(epochs, "epoch") if epochs else ""


class Retraining(Stage[RetrainingRecord]):
    """The stage that trains one network: its weights, an exported program, and the history of the training."""

    name = "retraining"
    title = "Retraining"
    record = RetrainingRecord
    uses_code_of = ("search.space", "retraining")
    workers = "retraining"

    verb: ClassVar[str] = "Retraining"
    """The verb on the progress bar."""

    network: ClassVar[str] = "searched"
    """The name of the network in tables."""

    short: ClassVar[str] = "searched"
    """The name of the network where there is little room."""

    programs: ClassVar[tuple[Format, ...]] = ("pt2",)
    """The formats that are written beside the weights."""

    def __init__(self, session: Session, architecture: Architecture, source: ImageSource | None = None):
        """Set up the training of an architecture.

        Args:
            session: The session of the command.
            architecture: The architecture to train.
            source: The source of the images; by default the one of `retraining.images`.
        """
        super().__init__(session)
        self.architecture, self.config = architecture, session.config.retraining
        self.source = images_of(session, self.config.images, "retraining.images") if source is None else source

    def inputs(self) -> JsonObject:
        """See `Stage`."""
        return {
            "upstream": {self.source.name: self.source.key},
            "seed": self.session.config.seed,
            "space": self.architecture.config,
            "genotype": self.architecture.text,
            "search": {"validation_fraction": self.session.config.search.validation_fraction},
            "retraining": self.config.settings,
            "threads": self.session.config.cluster.retraining.cpus,
        }

    def read(self) -> RetrainingRecord | None:
        """Return the record if the network's files beside it are intact."""
        record = super().read()
        if record is None:
            return None
        if not network_is_intact(self.location, self.session.listener.say):
            self.dir.reopen()
            return None
        self._describe_again()
        return record

    @property
    def description(self) -> NetworkDescription:
        """The description that is written beside the weights."""
        return NetworkDescription.of(self.architecture, self.session.teacher, self.source.canvas_size)

    def _describe_again(self) -> None:
        """Write program and description again if class names or the resizing have changed, or if an older version wrote them."""
        if not NetworkDescription.read(self.location).differs_from(self.description):
            return
        self.session.listener.say(f"{self.name}: network.pt2 and network.json are written again; the weights stay.")
        _, network = load_network(self.location)
        with unsealed(self.location):
            self._write(network, weights_file(self.location).read_bytes())

    def _write(self, network: nn.Module, weights: bytes | None = None) -> None:
        """Write the description of a network, its programs, and its weights, unless these are given as bytes."""
        rest: list[Format] = [] if weights else ["safetensors"]
        try:
            write_network(network, self.description, self.location, [*rest, *self.programs], weights)
        except ExportError as error:  # not worth losing hours of training
            self.session.listener.say(f"{self.name}: there is no network.pt2. {error}")
            write_network(network, self.description, self.location, rest, weights)

    def _chance(self) -> float | None:
        config, quality = self.session.config, None
        if isinstance(self.source, Synthesis):
            quality = QualityReport.find(self.source.location)
        largest = quality.overall.get("largest_class", 0.0) if quality else 0.0
        total = self.source.size.images if isinstance(self.source, SourceImages) else config.synthesis.images_in_total
        images = round(total * config.search.validation_fraction)
        return chance_of(self.session.teacher.num_classes, images, largest)

    def num_workers(self) -> int:
        """Return the number of workers that train together."""
        return self.config.num_workers

    @property
    def job(self) -> RetrainingJob:
        """The training: architecture, settings, and the folder of its state."""
        config, architecture = self.session.config, self.architecture
        return RetrainingJob(
            self.config,
            config.cluster.retraining,
            config.seed,
            architecture.space,
            architecture.genotype,
            config.search.validation_fraction,
            self.location,
        )

    def work(self) -> RetrainingRecord:
        """See `Stage`."""
        session = self.session
        executor, what = session.executor, f"{self.verb} {shorten(self.architecture.text, 24)}"
        with session.listener.task(what, self.config.epochs, "epoch") as task, executor.show(task) as board:
            return self.keep(executor.train(self.job, session.shared_teacher, self.source.images(executor), board))

    def keep(self, trained: Retrained, seconds: float = 0.0) -> RetrainingRecord:
        """Write the trained network, and return the record.

        Args:
            trained: The result of the job.
            seconds: The time that it took, if the stage cannot know it.
        """
        architecture = self.architecture
        self._write(trained.network)
        History(tuple(trained.history)).write(self.location)
        cost = architecture.cost
        return RetrainingRecord(
            space_config=architecture.config,
            genotype=architecture.text,
            macs=cost.macs,
            params=cost.params,
            images=self.config.images.description,
            data_free=self.config.images.is_data_free,
            chance=self._chance(),
            seconds=seconds,
            **trained.history[-1],
        )

    def log(self, record: RetrainingRecord, events: EventLog) -> None:
        """See `Stage`: a curve of each figure over the epochs, and a row of hyper-parameters."""
        with events.run() as run:
            for epoch, figures in enumerate(History.read(self.location), 1):
                for name, value in figures.items():
                    run.scalar(name, value, epoch)
            settings = {**flat(self.inputs()["retraining"]), "genotype": record.genotype, "macs": record.macs}
            run.hyperparameters(settings, {"agreement": record.validation_agreement})


class ComparedNetwork(Retraining):
    """One of the many networks of a comparison, of which only the weights are written."""

    name = "compared"
    title = "Compared network"
    programs = ()


class Baseline(Retraining):
    """The retraining of a random architecture with the same budget, which shows what the search was worth."""

    name = "baseline"
    title = "Random baseline"
    verb = "Baseline"
    network = "random, same budget"
    short = "random network"
    shown_unasked = False  # it may belong to another architecture

    @classmethod
    def is_asked_for(cls, experiment: JsonObject) -> bool:
        """See `Stage`."""
        return bool(section(experiment, "retraining").get("baseline", True))
