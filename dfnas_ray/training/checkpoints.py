"""The states of a training: in one file, for a training in one process, and in the folders of Ray Train."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from io import BytesIO
from operator import attrgetter
from typing import NamedTuple, Self

import torch

from dfnas_ray.errors import StorageError, first_line
from dfnas_ray.storage.altered import Say, load_or_set_aside, set_aside, storage_fails
from dfnas_ray.storage.location import Location
from dfnas_ray.training.retraining import (
    Checkpoint,
    EpochFigures,
    Retrained,
    RetrainingJob,
    decode_checkpoint,
    epochs_of,
    retrained,
)

logger = logging.getLogger(__name__)

STATE_FILE = "state.pt"
"""The file with the state, in the folder of a training and in each checkpoint of Ray Train.

Ray Train resumes from the first one if it has no checkpoint of its own.
"""


RAY_FOLDER = "train"
"""The subfolder of a training's folder that holds Ray Train's files."""

RAY_CHECKPOINT = re.compile(r"checkpoint_[\w.-]+")
"""The name of a folder in which Ray Train keeps one checkpoint."""


class SavedState(NamedTuple):
    """A state from which a training can continue: the number of epochs before it, and its bytes."""

    epochs: int
    data: bytes


def read_state(job: RetrainingJob, folder: Location) -> SavedState | None:
    """Return the state in a folder; None if there is none, or if the training cannot continue from it.

    Raises:
        StorageError: the storage fails.
    """
    file = folder / STATE_FILE
    try:
        data = file.read_bytes()
        return SavedState(epochs_of(job, decode_checkpoint(data, torch.device("cpu"))), data)
    except StorageError as error:
        if storage_fails(error) and not isinstance(error.__cause__, FileNotFoundError):
            raise
    except Exception as error:  # a damaged file can end in an error of any kind
        logger.debug("%s: %s", file, first_line(error))
    return None


def latest_of_ray_train(job: RetrainingJob) -> SavedState | None:
    """Return the state with the most epochs among Ray Train's checkpoints; None if there is none.

    Raises:
        StorageError: the storage fails.
    """
    folder = job.folder / RAY_FOLDER
    names = [name for name in folder.folder_names() if RAY_CHECKPOINT.fullmatch(name)]
    usable = [state for name in names if (state := read_state(job, folder / name)) is not None]
    return max(usable, key=attrgetter("epochs"), default=None)


class FileCheckpoints:
    """Checkpoints in one file: each state overwrites the one before."""

    def __init__(self, file: Location):
        self.file = file

    @classmethod
    def of(cls, job: RetrainingJob) -> Self:
        """Return the checkpoints in the folder of a job."""
        return cls(job.folder / STATE_FILE)

    def catch_up(self, job: RetrainingJob, say: Say = logger.warning) -> None:
        """Write the latest checkpoint of Ray Train into the file, if an interrupted command with Ray got further.

        Args:
            job: The training whose folder holds both.
            say: Called with a message if the file is damaged; it is then set aside.

        Raises:
            StorageError: the storage fails.
        """
        latest = latest_of_ray_train(job)
        if latest is None:
            return
        own = read_state(job, job.folder)
        if own is None and self.file.exists():
            set_aside(self.file, f"{self.file} is damaged.", say)
        if own is None or own.epochs < latest.epochs:
            self.file.write_bytes(latest.data)

    def take_up(self, device: torch.device, load: Callable[[Checkpoint], object]) -> bool:
        """See `Checkpoints`."""
        if not self.file.exists():
            return True
        return load_or_set_aside(self.file, lambda data: load(decode_checkpoint(data, device)))

    def save(self, checkpoint: Checkpoint, figures: EpochFigures) -> None:
        """See `Checkpoints`."""
        buffer = BytesIO()
        torch.save(checkpoint, buffer)
        self.file.write_bytes(buffer.getbuffer())

    def trained(self, job: RetrainingJob) -> Retrained:
        """Return the trained network from the last state, after the training has ended."""
        return retrained(job, decode_checkpoint(self.file.read_bytes(), torch.device("cpu")))
