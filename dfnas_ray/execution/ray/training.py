"""Retraining with Ray Train, which writes a checkpoint into the stage's folder after every epoch.

If a group of workers fails, the next one continues from the last checkpoint. So does a later command with the same
settings.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ray.exceptions import OutOfMemoryError, RayActorError

from dfnas_ray.errors import DfnasError
from dfnas_ray.execution.ray.checkpoints import recover
from dfnas_ray.execution.ray.connection import worker_device
from dfnas_ray.execution.ray.errors import last_line, reason_of
from dfnas_ray.progress import Board
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.regular_files import read_regular
from dfnas_ray.storage.retries import passes_by_itself, with_restarts
from dfnas_ray.storage.shards import SyntheticImages
from dfnas_ray.storage.shared import Shared
from dfnas_ray.teachers.base import Teacher
from dfnas_ray.training.checkpoints import RAY_FOLDER, STATE_FILE
from dfnas_ray.training.retraining import (
    Checkpoint,
    EpochFigures,
    Place,
    Retrained,
    RetrainingJob,
    decode_checkpoint,
    retrained,
    train_network,
)

_LOST = (RayActorError, OutOfMemoryError)
"""Raised if Ray Train's controller is lost."""


def train(job: RetrainingJob, teacher: Shared[Teacher], images: Shared[SyntheticImages], board: Board) -> Retrained:
    """Train the network on ``job.config.num_workers`` workers; see `Executor.train`."""
    import ray.train
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    class Trainer(TorchTrainer):  # type: ignore[misc]  # Ray has no types here
        """Leaves Ctrl-C to the command: Ray Train's own handler would end the process, and would stay installed."""

        def _register_sigint_handler(self, controller: Any) -> None:
            pass

    resources = job.resources
    trainer = Trainer(
        _worker,
        train_loop_config={"job": job, "teacher": teacher, "images": images, "board": board},
        scaling_config=ray.train.ScalingConfig(
            num_workers=job.config.num_workers,
            use_gpu=resources.gpus > 0,
            resources_per_worker=resources.bundle(),
            placement_strategy=resources.placement,
        ),
        run_config=ray.train.RunConfig(
            name=RAY_FOLDER,
            storage_path=job.folder.path,
            storage_filesystem=job.folder.filesystem,
            failure_config=ray.train.FailureConfig(max_failures=resources.attempts - 1),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
        ),
    )

    def fit() -> Any:
        recover(job)
        return trainer.fit()

    try:
        result = with_restarts(fit, resources.attempts, job.folder.exists, _passes)
    except (TrainingFailedError, *_LOST) as error:
        is_controller = isinstance(error, _LOST)
        reason = reason_of(error, "retraining") if is_controller else last_line(error, "retraining")
        raise DfnasError(
            f"Retraining of {job.space.encode(job.genotype)} failed {resources.attempts} times: {reason}. "
            f"Its checkpoints are kept in {job.folder}; run the same command again to go on from the last epoch."
        ) from error
    return retrained(job, _read(result.checkpoint, torch.device("cpu")))


def _passes(error: BaseException) -> bool:
    """Return whether another attempt may succeed.

    Ray Train retries its workers' writes, but not its controller's, and it does not replace a controller that is lost.
    """
    return isinstance(error, _LOST) or passes_by_itself(getattr(error, "controller_failure", error))


class _TrainCheckpoints:
    """Ray Train's own checkpoints: all workers report, the first one saves."""

    def __init__(self, rank: int, before: Location):
        """Set up the checkpoints of a worker.

        Args:
            rank: The worker's rank.
            before: A file with a state, used if Ray Train has no checkpoint; it may be missing.
        """
        self.rank, self.before = rank, before

    def take_up(self, device: torch.device, load: Callable[[Checkpoint], object]) -> bool:
        import ray.train

        checkpoint = ray.train.get_checkpoint()
        if checkpoint is not None:
            load(_read(checkpoint, device))  # `recover` has checked it
        elif self.before.exists():
            load(decode_checkpoint(self.before.read_bytes(), device))
        return True

    def save(self, checkpoint: Checkpoint, figures: EpochFigures) -> None:
        import ray.train

        with tempfile.TemporaryDirectory() as folder:
            saved = None
            if self.rank == 0:
                torch.save(checkpoint, Path(folder) / STATE_FILE)
                saved = ray.train.Checkpoint.from_directory(folder)
            ray.train.report({"epoch": len(checkpoint["history"]), **figures}, checkpoint=saved)


def _read(checkpoint: Any, device: torch.device) -> Checkpoint:
    with checkpoint.as_directory() as folder:
        return decode_checkpoint(read_regular(Path(folder) / STATE_FILE), device)


def _worker(config: dict[str, Any]) -> None:
    import ray.train
    import ray.train.torch

    job: RetrainingJob = config["job"]
    context = ray.train.get_context()
    place = Place(
        context.get_world_rank(),
        context.get_world_size(),
        lambda network: ray.train.torch.prepare_model(
            network,
            move_to_device=False,
            # Operations that give zeros may leave convolutions before them without a gradient.
            parallel_strategy_kwargs={"find_unused_parameters": True},
        ),
    )
    device = worker_device(job.resources.cpus)
    checkpoints = _TrainCheckpoints(place.rank, job.folder / STATE_FILE)
    train_network(job, config["teacher"].get(), config["images"].get(), device, checkpoints, config["board"], place)
