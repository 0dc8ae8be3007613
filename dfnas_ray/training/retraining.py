"""Retraining: one network from scratch, by distillation or from labels.

The loop knows nothing of processes. Its caller says where checkpoints are kept, and how the network is wrapped if
several workers average its gradients.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Annotated, Any, Literal, Protocol, TypeAlias

import torch
from pydantic import Field, TypeAdapter
from torch import Tensor, nn

from dfnas_ray.config.cluster import RetrainingResources
from dfnas_ray.ops.batching import batch_size_for
from dfnas_ray.ops.compiling import compiled_on_cpu
from dfnas_ray.ops.networks import channels_last, evaluation_mode
from dfnas_ray.progress import Board
from dfnas_ray.search_spaces.base import Genotype, SearchSpace
from dfnas_ray.seeding import derive_seed, seed_everything
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.shards import SyntheticImages
from dfnas_ray.teachers.base import Teacher
from dfnas_ray.training.batches import SyntheticBatches
from dfnas_ray.training.config import RetrainingConfig
from dfnas_ray.training.device_images import DeviceImages
from dfnas_ray.training.splits import check_split, split_mask
from dfnas_ray.training.student import Student, set_drop_path, train_epoch, validate

_VALIDATION_BATCH = 256
_COMPILE = "retraining.compile"

Checkpoint: TypeAlias = dict[str, Any]
"""The state of a training: tensors, numbers and text only."""

EpochFigures: TypeAlias = dict[str, float]
"""The figures of one epoch: ``loss``, ``validation_loss`` and ``validation_agreement``."""


_Figure: TypeAlias = Literal["loss", "validation_loss", "validation_agreement"]
_HISTORY = TypeAdapter(Annotated[list[dict[_Figure, float]], Field(min_length=1)])


@dataclass(frozen=True)
class RetrainingJob:
    """The network to train, and the settings of its training."""

    config: RetrainingConfig
    resources: RetrainingResources
    seed: int
    space: SearchSpace
    genotype: Genotype
    validation_fraction: float
    folder: Location


@dataclass(frozen=True)
class Retrained:
    """The trained network in evaluation mode, and the figures of each epoch."""

    network: nn.Module
    history: list[EpochFigures]


class Checkpoints(Protocol):
    """The place where a training keeps its state."""

    def take_up(self, device: torch.device, load: Callable[[Checkpoint], object]) -> bool:
        """Call ``load`` with the last checkpoint, with its tensors on ``device``, if there is a checkpoint.

        Returns:
            False if the checkpoint cannot be loaded. It is then set aside, and the training must start again.
        """
        ...

    def save(self, checkpoint: Checkpoint, figures: EpochFigures) -> None:
        """Save the state after an epoch. Every worker calls this with the same state."""
        ...


def decode_checkpoint(data: bytes, device: torch.device) -> Checkpoint:
    """Return the checkpoint in a file's bytes, with its tensors on ``device``; damaged bytes may raise any error."""
    checkpoint: Checkpoint = torch.load(BytesIO(data), map_location=device, weights_only=True)
    return checkpoint


def epochs_of(job: RetrainingJob, checkpoint: Checkpoint) -> int:
    """Return the number of epochs done in a checkpoint, if a training can resume from it.

    Raises:
        Exception: it cannot, because the checkpoint is damaged or belongs to another training.
    """
    with torch.random.fork_rng(devices=[]):
        student = _student(job, torch.device("cpu"), 1)
        return len(_take_up(student, checkpoint))


@dataclass(frozen=True)
class Place:
    """The place of one worker among those that train together.

    Attributes:
        rank: The rank of the worker.
        world_size: The number of workers.
        wrap: Returns the wrapped network for the forward pass, for example with DDP.
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
        job: The network and the settings.
        teacher: The teacher, which labels the images.
        images: The training images.
        device: The device of this worker.
        checkpoints: Where the state is kept.
        board: Receives the progress.
        place: The place of this worker among those that train together; by default it is alone.

    Raises:
        ConfigError: no image is held out for validation, or none is left for training.
    """
    place = place or Place()
    settings = job.config
    check_split(images.ids, job.validation_fraction, job.seed)
    seed = derive_seed(job.seed, "retraining")
    placed = DeviceImages(images, device)
    train = training_batches(job, teacher, placed, place)
    batch_size = batch_size_for(teacher.image_shape, _VALIDATION_BATCH, device)
    held_out = split_mask(images.ids, job.validation_fraction, job.seed)
    validation = SyntheticBatches(placed, teacher, settings.distillation, batch_size, seed, side=held_out)

    seed_everything(seed)
    student = _student(job, device, settings.epochs * len(train))
    network = student.model
    forward = _forward(place.wrap(network), settings, device)
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
        loss = train_epoch(student, train, epoch, derive_seed(seed, "epoch", epoch, place.rank), forward)
        evaluation_mode(network)
        result = validate(network, validation.unvaried(), settings.distillation.temperature)
        figures = {"loss": loss, "validation_loss": result.loss, "validation_agreement": result.agreement}
        history.append(figures)
        checkpoints.save({"student": student.state_dict(), "history": history}, figures)
        if place.rank == 0:
            write(epoch + 1, f"agreement with the teacher {result.agreement:.1%}")


def training_batches(
    job: RetrainingJob, teacher: Teacher, images: DeviceImages, place: Place | None = None
) -> SyntheticBatches:
    """Return the training batches; with the same settings and seed they are the same for every architecture."""
    place, settings = place or Place(), job.config
    batches = SyntheticBatches(
        images,
        teacher,
        settings.distillation,
        settings.batch_size // place.world_size,
        derive_seed(job.seed, "retraining"),
        place.rank,
        place.world_size,
        ~split_mask(images.ids, job.validation_fraction, job.seed),
        precision=settings.precision,
        asks_teacher=settings.labels is None or settings.labels.weight < 1,
    )
    if settings.compile:
        batches.compile_teacher(_COMPILE)
    return batches


def train_at_once(job: RetrainingJob, batches: SyntheticBatches) -> nn.Module:
    """Train without checkpoints and figures, for many small networks; return the same network as `train_network` gives.

    Args:
        job: The network and the settings; its folder is not used.
        batches: The result of `training_batches`, which many networks can share.
    """
    seed, settings = derive_seed(job.seed, "retraining"), job.config
    seed_everything(seed)
    student = _student(job, batches.device, settings.epochs * len(batches))
    forward = _forward(student.model, settings, batches.device)
    for epoch in range(settings.epochs):
        set_drop_path(student.model, settings.drop_path * epoch / settings.epochs)
        train_epoch(student, batches, epoch, derive_seed(seed, "epoch", epoch, 0), forward)
    return evaluation_mode(student.model)


def _forward(network: nn.Module, settings: RetrainingConfig, device: torch.device) -> Callable[[Tensor], Tensor]:
    return compiled_on_cpu(network, _COMPILE, device) if settings.compile else network


def _student(job: RetrainingJob, device: torch.device, total_steps: int) -> Student:
    settings = job.config
    build = job.space.build_with_auxiliary if settings.auxiliary_weight else job.space.build
    return Student(
        channels_last(build(job.genotype).to(device)),
        settings.optimizer,
        settings.distillation.temperature,
        total_steps,
        settings.precision,
        settings.auxiliary_weight,
        labels=settings.labels,
    )


def _take_up(student: Student, checkpoint: Checkpoint) -> list[EpochFigures]:
    """Load a checkpoint into the student, and return the figures of the epochs before it."""
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
