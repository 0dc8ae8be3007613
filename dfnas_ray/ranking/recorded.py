"""One ranking and its measurements so far, written chunk by chunk.

Every ranking has its own folder. Recorded work is not repeated, even if other rankings or more architectures are added.

    FOLDER/state.pt, training.json      after every epoch
    FOLDER/measured-00000.json ...      a chunk of measurements each, by architecture
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from pydantic import BaseModel, ConfigDict

from dfnas_ray.algorithms.base import Measurement, SearchState
from dfnas_ray.algorithms.config import Trial
from dfnas_ray.algorithms.trials import SearchJob, make_state, restore, save
from dfnas_ray.storage.altered import Say, read_or_remove
from dfnas_ray.storage.location import Location, Seconds
from dfnas_ray.storage.numbered import NumberedFiles
from dfnas_ray.storage.shards import SyntheticImages
from dfnas_ray.teachers.base import Teacher

logger = logging.getLogger(__name__)


class RecordedChunk(BaseModel):
    """Architectures that were measured together: ``measured-00000.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds: Seconds
    measurements: dict[str, dict[str, int | float]]


class RecordedTraining(BaseModel):
    """The time that a training took so far: ``training.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds: Seconds


@dataclass(frozen=True, eq=False)
class Ranking:
    """One algorithm on one set of images, with one root seed.

    Attributes:
        name: The name that users see.
        job: The settings of the search, with the ranking's root seed and folder.
        trial: The algorithm and the space.
    """

    name: str
    job: SearchJob
    trial: Trial

    def restored(self, teacher: Teacher, images: SyntheticImages, device: torch.device) -> tuple[SearchState, str]:
        """Return the algorithm as far as it is trained, and a text that says how far that is."""
        state = make_state(self.job, self.trial, teacher, images, device)
        return state, restore(state, self.job.folder)

    def train(self, state: SearchState, on_epoch: Callable[[str], object] = lambda note: None) -> None:
        """Train the algorithm to its last epoch, and save its state after every epoch."""
        folder = self.job.folder
        file, before, started = folder / "training.json", Recorded(folder).training_seconds, time.monotonic()

        def on_progress(state: SearchState) -> None:
            file.write_json({"seconds": round(before + time.monotonic() - started, 3)})
            save(state, folder)
            algorithm = state.algorithm
            on_epoch(f"training {self.name}: epoch {algorithm.epochs_done} of {algorithm.num_epochs}")

        state.train(on_progress)


@dataclass
class Recorded:
    """The measurements recorded in a ranking's folder.

    Attributes:
        folder: The folder of the ranking.
        measurements: Measurements by the text of the architecture.
        seconds: Seconds that workers spent on them.
    """

    folder: Location
    measurements: dict[str, Measurement] = field(default_factory=dict)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self._files = NumberedFiles(self.folder, "measured", RecordedChunk)

    @classmethod
    def read(cls, ranking: Ranking, say: Say = logger.warning) -> Recorded:
        """Return the measurements of a ranking. An altered chunk is reported and removed, and will be measured again.

        Args:
            ranking: The ranking.
            say: Called with a message about each altered chunk.
        """
        recorded = cls(ranking.job.folder)
        recorded._files.read(recorded._take, say, partial(recorded._fault, ranking))
        return recorded

    def add(self, texts: Sequence[str], measurements: Sequence[Measurement], seconds: float) -> None:
        """Write one chunk."""
        chunk = RecordedChunk(seconds=round(seconds, 3), measurements=dict(zip(texts, measurements, strict=True)))
        self._files.add(dict(chunk))
        self._take(chunk)

    def missing(self, texts: Iterable[str]) -> list[str]:
        """Return the architectures that are not measured yet."""
        return [text for text in texts if text not in self.measurements]

    @property
    def training_seconds(self) -> float:
        """Seconds of training before the first candidate could be measured."""
        training = read_or_remove(self.folder / "training.json", RecordedTraining)
        return 0.0 if training is None else training.seconds

    @property
    def seconds_per_architecture(self) -> float:
        """Seconds per architecture; all recorded architectures share the time of training."""
        return (self.training_seconds + self.seconds) / len(self.measurements)

    def _fault(self, ranking: Ranking, chunk: RecordedChunk) -> str:
        """Return why a chunk cannot belong to this ranking; empty if it can.

        All measurements of a ranking have the same figures, among them those that the algorithm needs.
        """
        needed = set(ranking.trial.algorithm.figures)
        known = next((measured.keys() for measured in self.measurements.values()), None)
        for text, measured in chunk.measurements.items():
            if lacking := needed - measured.keys():
                return f"the measurement of {text} has no {min(lacking)}"
            known = measured.keys() if known is None else known
            if measured.keys() != known:
                return f"the measurement of {text} has other figures than those before it"
        return ""

    def _take(self, chunk: RecordedChunk) -> None:
        self.measurements.update(chunk.measurements)
        self.seconds += chunk.seconds
