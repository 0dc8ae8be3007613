"""Retraining: one architecture from scratch on synthetic images alone, and the random one beside it."""

from __future__ import annotations

from typing import ClassVar

from dfnas_ray import formatting
from dfnas_ray.progress import shorten
from dfnas_ray.search_spaces.architecture import Architecture
from dfnas_ray.storage.location import Count, JsonObject, Location, section
from dfnas_ray.training.export import History as History
from dfnas_ray.training.export import NetworkDescription, export_network, network_is_intact
from dfnas_ray.training.retraining import RetrainingJob
from dfnas_ray.workflow.session import Session
from dfnas_ray.workflow.stage import ImageSource, Record, Stage
from dfnas_ray.workflow.synthesis import Synthesis


class RetrainingRecord(Record):
    """A trained network, and what its last epoch showed."""

    space_config: JsonObject
    genotype: str
    macs: Count
    params: Count
    loss: float
    validation_loss: float
    validation_agreement: float

    @property
    def headline(self) -> str:
        """See `Record`."""
        return f"{self.genotype}: agrees with the teacher on {self.validation_agreement:.1%}"

    def detail(self, folder: Location) -> str:
        """See `Record`."""
        epochs = len(History.read(folder))
        return formatting.plural(epochs, "epoch") if epochs else ""


class Retraining(Stage[RetrainingRecord]):
    """Weights, an exported program, and the history of the training."""

    name = "retraining"
    title = "Retraining"
    record = RetrainingRecord
    workers = "retraining"

    verb: ClassVar[str] = "Retraining"
    """What the bar says."""

    network: ClassVar[str] = "searched"
    """What tables call the network."""

    short: ClassVar[str] = "searched"
    """The same where there is little room."""

    def __init__(self, session: Session, architecture: Architecture, source: ImageSource | None = None):
        """Train on images.

        Args:
            session: The command.
            architecture: What is trained.
            source: Of the images; by default the experiment's synthesis.
        """
        super().__init__(session)
        self.architecture, self.config = architecture, session.config.retraining
        self.source = Synthesis(session) if source is None else source

    def inputs(self) -> JsonObject:
        """See `Stage`."""
        return {
            "upstream": {"synthesis": self.source.key},
            "seed": self.session.config.seed,
            "space": self.architecture.config,
            "genotype": self.architecture.text,
            "search": {"validation_fraction": self.session.config.search.validation_fraction},
            "retraining": self.config.model_dump(mode="json", exclude={"baseline"}),
            "threads": self.session.config.cluster.retraining.cpus,
        }

    def read(self) -> RetrainingRecord | None:
        """Return the record, if the network's files beside it can be read."""
        record = super().read()
        if record is None or network_is_intact(self.location, self.session.listener.say):
            return record
        self.dir.reopen()
        return None

    def num_workers(self) -> int:
        """Those that train together."""
        return self.config.num_workers

    def work(self) -> RetrainingRecord:
        """See `Stage`."""
        session, architecture = self.session, self.architecture
        job = RetrainingJob(
            self.config,
            session.config.cluster.retraining,
            session.config.seed,
            architecture.space,
            architecture.genotype,
            session.config.search.validation_fraction,
            self.location,
        )
        executor, what = session.executor, f"{self.verb} {shorten(architecture.text, 24)}"
        with session.listener.task(what, self.config.epochs, "epoch") as task, executor.show(task) as board:
            trained = executor.train(job, session.shared_teacher, self.source.images(executor), board)
        export_network(trained.network, session.teacher.image_shape, self.location)
        NetworkDescription.of(architecture, session.teacher).write(self.location)
        History(tuple(trained.history)).write(self.location)
        cost = architecture.cost
        return RetrainingRecord(
            space_config=architecture.config,
            genotype=architecture.text,
            macs=cost.macs,
            params=cost.params,
            **trained.history[-1],
        )


class Baseline(Retraining):
    """The same with a random architecture of the same budget: it says what the search was worth."""

    name = "baseline"
    title = "Random baseline"
    verb = "Baseline"
    network = "random, same budget"
    short = "random network"
    shown_unasked = False  # it may be another architecture's neighbour

    @classmethod
    def is_asked_for(cls, experiment: JsonObject) -> bool:
        """See `Stage`."""
        return bool(section(experiment, "retraining").get("baseline", True))
