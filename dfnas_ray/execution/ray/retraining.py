"""Retraining with Ray Train: one network from scratch, by distillation on synthetic images alone.

Ray Train keeps a checkpoint of every epoch in the stage's folder; a group of workers that breaks, or a later command with
the same settings, goes on from the last one.
"""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from torch import nn

from dfnas_ray.config.cluster import RetrainingResources
from dfnas_ray.errors import DfnasError
from dfnas_ray.execution.ray.board import ProgressBoard
from dfnas_ray.execution.ray.cluster import worker_device
from dfnas_ray.search_spaces.base import Genotype, SearchSpace
from dfnas_ray.seeding import derive_seed, seed_everything
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.shards import SyntheticImages
from dfnas_ray.teachers.base import Teacher
from dfnas_ray.training.batches import SyntheticBatches, split_mask
from dfnas_ray.training.config import RetrainingConfig
from dfnas_ray.training.student import Student, set_drop_path, train_epoch, validate

_STATE_FILE = "state.pt"


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
    """The trained network, and one entry per epoch with its losses and its agreement with the teacher."""

    network: nn.Module
    history: list[dict[str, float]]


def retrain(
    job: RetrainingJob, teacher: Teacher, images: ray.ObjectRef[SyntheticImages], board: ProgressBoard
) -> Retrained:
    """Train the network on ``job.config.num_workers`` workers.

    Raises:
        DfnasError: the workers failed for good; says how to go on.
    """
    import ray.train
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    class Trainer(TorchTrainer):  # type: ignore[misc]  # Ray has no types here
        """Leaves Ctrl-C to the command: Ray Train's own handler would end the process, and stay for what comes after."""

        def _register_sigint_handler(self, controller: Any) -> None:
            pass

    resources = job.resources
    trainer = Trainer(
        _worker,
        train_loop_config={"job": job, "teacher": [ray.put(teacher)], "images": [images], "board": board},
        scaling_config=ray.train.ScalingConfig(
            num_workers=job.config.num_workers,
            use_gpu=resources.gpus > 0,
            resources_per_worker=resources.bundle(),
            placement_strategy=resources.placement,
        ),
        run_config=ray.train.RunConfig(
            name="train",
            storage_path=job.folder.path,
            storage_filesystem=job.folder.filesystem,
            failure_config=ray.train.FailureConfig(max_failures=resources.attempts - 1),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
        ),
    )
    try:
        result = trainer.fit()
    except TrainingFailedError as error:
        raise DfnasError(
            f"Retraining of {job.space.encode(job.genotype)} failed {resources.attempts} times: "
            f"{(str(error).strip().splitlines() or [''])[-1]}. Its checkpoints are kept in {job.folder}; run the same "
            "command again to go on from the last epoch."
        ) from error
    with result.checkpoint.as_directory() as folder:
        state = torch.load(Path(folder) / _STATE_FILE, map_location="cpu", weights_only=True)
    network = job.space.build(job.genotype)
    weights = state["student"]["model"]
    network.load_state_dict({name: weights[name] for name in network.state_dict()})  # without the auxiliary classifier
    return Retrained(network.eval(), state["history"])


def _worker(config: dict[str, Any]) -> None:
    import ray.train
    import ray.train.torch

    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # shared memory is read only
    job: RetrainingJob = config["job"]
    teacher: Teacher = ray.get(config["teacher"][0])
    images: SyntheticImages = ray.get(config["images"][0])
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    device = worker_device(job.resources.cpus)
    settings = job.config
    seed = derive_seed(job.seed, "retraining")
    mask = split_mask(images.ids, job.validation_fraction, job.seed)
    per_worker = settings.batch_size // world_size
    train = SyntheticBatches(
        images.select(~mask), teacher, settings.distillation, per_worker, seed, device, rank, world_size
    )
    validation = SyntheticBatches(images.select(mask), teacher, settings.distillation, 256, seed, device)

    seed_everything(seed)
    build = job.space.build_with_auxiliary if settings.auxiliary_weight else job.space.build
    network = build(job.genotype).to(device).to(memory_format=torch.channels_last)
    parallel = ray.train.torch.prepare_model(network, move_to_device=False)
    student = Student(
        network,
        settings.optimizer,
        settings.distillation.temperature,
        settings.epochs * len(train),
        settings.precision,
        settings.auxiliary_weight,
    )
    history: list[dict[str, float]] = []
    if (checkpoint := ray.train.get_checkpoint()) is not None:
        with checkpoint.as_directory() as folder:
            state = torch.load(Path(folder) / _STATE_FILE, map_location=device, weights_only=True)
        student.load_state_dict(state["student"])
        history = state["history"]
    if rank == 0:
        config["board"].start("Retraining", f"after epoch {len(history)} of {settings.epochs}")
    write = config["board"].writer("train")
    for epoch in range(len(history), settings.epochs):
        set_drop_path(network, settings.drop_path * epoch / settings.epochs)
        loss = train_epoch(student, train, epoch, derive_seed(seed, "epoch", epoch, rank), parallel)
        network.eval()
        result = validate(network, validation.unvaried(), settings.distillation.temperature)
        history.append(
            {
                "loss": loss,
                "validation_loss": result.loss,
                "validation_agreement": result.agreement,
            }
        )
        with tempfile.TemporaryDirectory() as folder:
            saved = None
            if rank == 0:
                torch.save({"student": student.state_dict(), "history": history}, Path(folder) / _STATE_FILE)
                saved = ray.train.Checkpoint.from_directory(folder)
            ray.train.report({"epoch": epoch + 1, **history[-1]}, checkpoint=saved)
        if rank == 0:
            write(epoch + 1, f"agreement with the teacher {result.agreement:.1%}")
