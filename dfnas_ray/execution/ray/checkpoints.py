"""Ray Train's checkpoints in the folder of a retraining, checked before Ray Train continues from them.

Ray Train keeps a file with the names of its checkpoints. It reads what the file names, and deletes that when there are
newer checkpoints, so the names must not lead out of the folder. The file is not written atomically: a kill may leave a
part of it.
"""

from __future__ import annotations

import logging

import ray
from pydantic import BaseModel

from dfnas_ray.errors import StorageError, shortened
from dfnas_ray.storage.altered import Say, reason, set_aside, storage_fails
from dfnas_ray.storage.location import Location
from dfnas_ray.training.checkpoints import RAY_CHECKPOINT, RAY_FOLDER, STATE_FILE, latest_of_ray_train, read_state
from dfnas_ray.training.retraining import RetrainingJob

logger = logging.getLogger(__name__)

_SNAPSHOT = "checkpoint_manager_snapshot.json"


class _Named(BaseModel):
    checkpoint_dir_name: str


class _Snapshot(BaseModel):
    """The fields of Ray's file that are checked here."""

    ray_version: str
    checkpoint_results: list[_Named]
    pending_training_results: list[_Named]
    latest_checkpoint_result: _Named | None = None


def recover(job: RetrainingJob, say: Say = logger.warning) -> None:
    """Make sure that Ray Train can continue. If something is damaged, name it and set aside all that Ray Train knows.

    The training then continues from the last checkpoint that can be used, or starts again.

    Raises:
        StorageError: the storage fails.
    """
    own = job.folder / STATE_FILE
    if own.exists() and read_state(job, job.folder) is None:
        set_aside(own, f"{own} is damaged.", say)
    folder = job.folder / RAY_FOLDER
    fault = _fault(job, folder)
    if not fault and not own.exists():
        return
    latest = latest_of_ray_train(job)
    before = read_state(job, job.folder) if own.exists() else None
    if before is not None and latest is not None and before.epochs > latest.epochs:
        set_aside(folder, fault or f"{folder} is behind {own}.", say)  # of an earlier command with fewer workers
    elif fault:
        if latest is not None:
            own.write_bytes(latest.data)
        set_aside(folder, fault, say)


def _fault(job: RetrainingJob, folder: Location) -> str:
    """Return a sentence on what is wrong with Ray Train's checkpoints; empty if nothing is."""
    file = folder / _SNAPSHOT
    if not file.exists():
        return ""
    try:
        snapshot = file.read_model(_Snapshot)
    except StorageError as error:
        if storage_fails(error):
            raise
        return reason(error)
    if snapshot.ray_version != ray.__version__:
        return f"{folder} was written by Ray {shortened(snapshot.ray_version, 40)}, which Ray {ray.__version__} does not read."
    named = [*snapshot.checkpoint_results, *snapshot.pending_training_results]
    named += [snapshot.latest_checkpoint_result] if snapshot.latest_checkpoint_result else []
    for name in {each.checkpoint_dir_name for each in named}:
        if not RAY_CHECKPOINT.fullmatch(name):
            return f"{file} was altered: {shortened(repr(name), 100)} is not the name of a checkpoint."
        if read_state(job, folder / name) is None:
            return f"The checkpoint {folder / name} is damaged."
    return ""
