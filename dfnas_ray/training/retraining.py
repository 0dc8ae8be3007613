"""Retraining: one network from scratch, by distillation or from labels.

The loop knows nothing of processes: whoever runs it says where checkpoints are kept, and how a network is wrapped whose
gradients several workers average.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Annotated, Any, Literal, Protocol, TypeAlias

import torch
from pydantic import Field, TypeAdapter
from torch import nn

from dfnas_ray.config.cluster import RetrainingResources
from dfnas_ray.ops.networks import evaluation_mode
from dfnas_ray.progress import Board
from dfnas_ray.search_spaces.base import Genotype, SearchSpace
from dfnas_ray.seeding import derive_seed, seed_everything
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.shards import SyntheticImages
from dfnas_ray.teachers.base import Teacher
from dfnas_ray.training.batches import SyntheticBatches, split_mask
from dfnas_ray.training.config import RetrainingConfig
from dfnas_ray.training.student import Student, set_drop_path, train_epoch, validate

_VALIDATION_BATCH = 256

Checkpoint: TypeAlias = dict[str, Any]
"""The state of a training: tensors, numbers and text only."""

EpochFigures: TypeAlias = dict[str, float]
"""What one epoch showed: ``loss``, ``validation_loss`` and ``validation_agreement``."""


_Figure: TypeAlias = Literal["loss", "validation_loss", "validation_agreement"]
_HISTORY = TypeAdapter(Annotated[list[dict[_Figure, float]], Field(min_length=1)])


@dataclass(frozen=True)
class RetrainingJob:
    """Which network is trained, and how."""

    config: RetrainingConfig
    resources: RetrainingResources
    seed: int
    space: SearchSpace
    genotype: Genotype
    validation_fraction: float
    folder: Location


@dataclass(frozen=True)
class Retrained:
    """The trained network in evaluation mode, and what each epoch showed."""

    network: nn.Module
    history: list[EpochFigures]


class Checkpoints(Protocol):
    """Where a training keeps its state."""

    def take_up(self, device: torch.device, load: Callable[[Checkpoint], object]) -> bool:
        """Give ``load`` what was saved last, its tensors on a device, if anything was.

        Returns:
            False if what was saved cannot be taken up. It is set aside, and the training is to begin anew.
        """
        ...

    def save(self, checkpoint: Checkpoint, figures: EpochFigures) -> None:
        """Keep the state after an epoch. Every worker calls it; the state is the same in all."""
        ...


def decode_checkpoint(data: bytes, device: torch.device) -> Checkpoint:
    """Return the state that the bytes of a file hold, its tensors on a device. Damaged ones end in an error of any kind."""
    checkpoint: Checkpoint = torch.load(BytesIO(data), map_location=device, weights_only=True)
    return checkpoint


def epochs_of(job: RetrainingJob, checkpoint: Checkpoint) -> int:
    """Return after how many epochs a checkpoint was saved, if a training can go on from it.

    Raises:
        Exception: it cannot: the checkpoint was damaged, or is another training's.
    """
    with torch.random.fork_rng(devices=[]):
        student = _student(job, torch.device("cpu"), 1)
        return len(_take_up(student, checkpoint))


@dataclass(frozen=True)
class Place:
    """One worker of those that train together.

    Attributes:
        rank: Its number.
        world_size: Their number.
        wrap: Returns what a network's forward pass goes through, such as DDP.
    """

    rank: int = 0
    world_size: int = 1
    wrap: Callable[[nn.Module], nn.Module] = lambda network: network


def train_network(
    job: RetrainingJob,
    teacher: Teacher,
    images: SyntheticImages,
    device: torch.device,
    checkpoints: Checkpoints,
    board: Board,
    place: Place | None = None,
) -> None:
    """Train from the last checkpoint to the last epoch; `retrained` then returns the network.

    Args:
        job: Which network, and how.
        teacher: Labels the images.
        images: The synthetic set.
        device: Where this worker computes.
        checkpoints: Where its state is kept.
        board: Told how far it is.
        place: Of this worker among those that train together; by default it is alone.
    """
    place = place or Place()
    settings = job.config
    seed = derive_seed(job.seed, "retraining")
    train = training_batches(job, teacher, images, device, place)
    held_out = images.select(split_mask(images.ids, job.validation_fraction, job.seed))
    validation = SyntheticBatches(held_out, teacher, settings.distillation, _VALIDATION_BATCH, seed, device)

    seed_everything(seed)
    student = _student(job, device, settings.epochs * len(train))
    network = student.model
    parallel = place.wrap(network)
    beginning = copy.deepcopy(student.state_dict())
    history: list[EpochFigures] = []

    def take_up(checkpoint: Checkpoint) -> None:
        history[:] = _take_up(student, checkpoint)

    if not checkpoints.take_up(device, take_up):
        student.load_state_dict(beginning)
        history.clear()
    if place.rank == 0:
        board.start("Retraining", f"after epoch {len(history)} of {settings.epochs}")
    write = board.writer("train")
    for epoch in range(len(history), settings.epochs):
        set_drop_path(network, settings.drop_path * epoch / settings.epochs)
        loss = train_epoch(student, train, epoch, derive_seed(seed, "epoch", epoch, place.rank), parallel)
        evaluation_mode(network)
        result = validate(network, validation.unvaried(), settings.distillation.temperature)
        figures = {"loss": loss, "validation_loss": result.loss, "validation_agreement": result.agreement}
        history.append(figures)
        checkpoints.save({"student": student.state_dict(), "history": history}, figures)
        if place.rank == 0:
            write(epoch + 1, f"agreement with the teacher {result.agreement:.1%}")


def training_batches(
    job: RetrainingJob, teacher: Teacher, images: SyntheticImages, device: torch.device, place: Place | None = None
) -> SyntheticBatches:
    """Return what a network learns from: the same for every architecture of the settings and the seed."""
    place, settings = place or Place(), job.config
    return SyntheticBatches(
        images.select(~split_mask(images.ids, job.validation_fraction, job.seed)),
        teacher,
        settings.distillation,
        settings.batch_size // place.world_size,
        derive_seed(job.seed, "retraining"),
        device,
        place.rank,
        place.world_size,
        precision=settings.precision,
        asks_teacher=settings.labels is None or settings.labels.weight < 1,
    )


def train_at_once(job: RetrainingJob, batches: SyntheticBatches) -> nn.Module:
    """Train without checkpoints and figures, for many small networks; the network is the one that `train_network` gives.

    Args:
        job: Which network, and how; its folder is not used.
        batches: What `training_batches` gave, which many networks share.
    """
    seed, settings = derive_seed(job.seed, "retraining"), job.config
    seed_everything(seed)
    student = _student(job, batches.device, settings.epochs * len(batches))
    for epoch in range(settings.epochs):
        set_drop_path(student.model, settings.drop_path * epoch / settings.epochs)
        train_epoch(student, batches, epoch, derive_seed(seed, "epoch", epoch, 0))
    return evaluation_mode(student.model)


def _student(job: RetrainingJob, device: torch.device, total_steps: int) -> Student:
    settings = job.config
    build = job.space.build_with_auxiliary if settings.auxiliary_weight else job.space.build
    return Student(
        build(job.genotype).to(device).to(memory_format=torch.channels_last),
        settings.optimizer,
        settings.distillation.temperature,
        total_steps,
        settings.precision,
        settings.auxiliary_weight,
        labels=settings.labels,
    )


def _take_up(student: Student, checkpoint: Checkpoint) -> list[EpochFigures]:
    """Go on from a checkpoint, and return what the epochs before it showed."""
    history: list[EpochFigures] = [
        {str(name): value for name, value in figures.items()}
        for figures in _HISTORY.validate_python(checkpoint["history"])
    ]
    student.load_state_dict(checkpoint["student"])
    return history


def retrained(job: RetrainingJob, checkpoint: Checkpoint) -> Retrained:
    """Return the network of a checkpoint, without the auxiliary classifier that training may have used."""
    network = job.space.build(job.genotype)
    weights = checkpoint["student"]["model"]
    network.load_state_dict({name: weights[name] for name in network.state_dict()})
    return Retrained(evaluation_mode(network), checkpoint["history"])
