"""Ray Train's checkpoints in the folder of a retraining, checked before Ray Train continues from them.

Ray Train keeps a file with the names of its checkpoints. It reads what the file names, and deletes that when there are
newer checkpoints, so the names must not lead out of the folder. The file is not written atomically: a kill may leave a
part of it.
"""

from __future__ import annotations

import logging
import re
from operator import itemgetter

import ray
import torch
from pyarrow import fs
from pydantic import BaseModel

from dfnas_ray.errors import StorageError, first_line, shortened
from dfnas_ray.storage.altered import Say, reason, set_aside, storage_fails
from dfnas_ray.storage.location import Location
from dfnas_ray.training.checkpoints import RAY_FOLDER, STATE_FILE
from dfnas_ray.training.retraining import RetrainingJob, decode_checkpoint, epochs_of

logger = logging.getLogger(__name__)

_SNAPSHOT = "checkpoint_manager_snapshot.json"
_CHECKPOINT = re.compile(r"checkpoint_[\w.-]+")


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
    if own.exists() and _read(job, job.folder) is None:
        set_aside(own, f"{own} is damaged.", say)
    folder = job.folder / RAY_FOLDER
    fault = _fault(job, folder)
    if not fault and not own.exists():
        return
    usable = [found for name in _checkpoints(folder) if (found := _read(job, folder / name)) is not None]
    latest = max(usable, key=itemgetter(0), default=None)
    before = _read(job, job.folder) if own.exists() else None
    if before is not None and latest is not None and before[0] > latest[0]:
        set_aside(folder, fault or f"{folder} is behind {own}.", say)  # of an earlier command with fewer workers
    elif fault:
        if latest is not None:
            own.write_bytes(latest[1])
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
        if not _CHECKPOINT.fullmatch(name):
            return f"{file} was altered: {shortened(repr(name), 100)} is not the name of a checkpoint."
        if _read(job, folder / name) is None:
            return f"The checkpoint {folder / name} is damaged."
    return ""


def _checkpoints(folder: Location) -> list[str]:
    infos = folder.filesystem.get_file_info(fs.FileSelector(folder.path, allow_not_found=True))
    folders = [info.base_name for info in infos if info.type == fs.FileType.Directory]
    return sorted(name for name in folders if _CHECKPOINT.fullmatch(name))


def _read(job: RetrainingJob, checkpoint: Location) -> tuple[int, bytes] | None:
    """Return the epochs before a checkpoint, and its state; None if the training cannot continue from it."""
    file = checkpoint / STATE_FILE
    try:
        data = file.read_bytes()
        return epochs_of(job, decode_checkpoint(data, torch.device("cpu"))), data
    except StorageError as error:
        if storage_fails(error) and not isinstance(error.__cause__, FileNotFoundError):
            raise
    except Exception as error:  # a damaged file can end in an error of any kind
        logger.debug("%s: %s", file, first_line(error))
    return None
