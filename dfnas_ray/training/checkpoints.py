"""The state of a training in one file, for a training in one process."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Self

import torch

from dfnas_ray.storage.altered import load_or_set_aside
from dfnas_ray.storage.location import Location
from dfnas_ray.training.retraining import (
    Checkpoint,
    EpochFigures,
    Retrained,
    RetrainingJob,
    decode_checkpoint,
    retrained,
)

STATE_FILE = "state.pt"
"""The file with the state, in the folder of a training and in each checkpoint of Ray Train.

Ray Train resumes from the first one if it has no checkpoint of its own.
"""


RAY_FOLDER = "train"
"""The subfolder of a training's folder that holds Ray Train's files."""


class FileCheckpoints:
    """Checkpoints in one file: each state overwrites the one before."""

    def __init__(self, file: Location):
        self.file = file

    @classmethod
    def of(cls, job: RetrainingJob) -> Self:
        """Return the checkpoints in the folder of a job."""
        return cls(job.folder / STATE_FILE)

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
