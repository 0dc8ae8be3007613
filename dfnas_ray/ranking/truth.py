"""The true accuracies of architectures: of each one on real images, after training on real, labelled images.

FOLDER/trained-00000.json ...       a chunk of architectures each, by their texts
"""

from __future__ import annotations

import csv
import io
import logging
import math
from collections.abc import Iterable, Mapping, Sequence

from pydantic import BaseModel, ConfigDict, Field

from dfnas_ray.search_spaces.base import SearchSpace
from dfnas_ray.storage.altered import Say
from dfnas_ray.storage.location import Location, Seconds
from dfnas_ray.storage.numbered import NumberedFiles
from dfnas_ray.training.evaluation import Grade

logger = logging.getLogger(__name__)

COLUMNS = ("arch", "accuracy", "nll", "params", "macs")
"""The columns of the table. By default, `dfnas benchmark` uses the first two. Accuracies are in percent."""


class TrueFigures(BaseModel):
    """The figures of one trained architecture.

    Attributes:
        accuracy: Top-1, in [0, 1].
        nll: Mean negative log likelihood of the labels, in nats; None where the training diverged.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    accuracy: float = Field(ge=0, le=1)
    nll: float | None = Field(ge=0)

    @classmethod
    def of(cls, grade: Grade) -> TrueFigures:
        """Return the recorded form of a grade."""
        return cls(accuracy=grade.accuracy, nll=grade.nll if math.isfinite(grade.nll) else None)


class TrainedChunk(BaseModel):
    """Architectures that were trained by one task: ``trained-00000.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds: Seconds
    figures: dict[str, TrueFigures] = Field(min_length=1)


class RecordedTruth:
    """The recorded figures of a folder, to which more can be added.

    Attributes:
        figures: Figures by the architecture's text.
        seconds: Seconds that workers spent on them.
    """

    def __init__(self, folder: Location, say: Say = logger.warning):
        """Read all recorded figures. An altered chunk is reported and removed, and will be trained again."""
        self.figures: dict[str, TrueFigures] = {}
        self.seconds = 0.0
        self._files = NumberedFiles(folder, "trained", TrainedChunk)
        self._files.read(self._take, say, lambda chunk: "")

    def add(self, chunk: TrainedChunk) -> None:
        """Write a chunk."""
        self._files.add(chunk.model_dump(mode="json"))
        self._take(chunk)

    def missing(self, texts: Iterable[str]) -> list[str]:
        """Return the architectures that are not trained yet."""
        return [text for text in texts if text not in self.figures]

    def _take(self, chunk: TrainedChunk) -> None:
        self.figures.update(chunk.figures)
        self.seconds += chunk.seconds


def truth_table(space: SearchSpace, texts: Sequence[str], figures: Mapping[str, TrueFigures]) -> bytes:
    """Return the table of some architectures as CSV, which `dfnas benchmark` reads like any table."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for name in texts:
        cost, known = space.cost(space.decode(name)), figures[name]
        nll = "" if known.nll is None else f"{known.nll:.6f}"
        writer.writerow([name, f"{100 * known.accuracy:.4f}", nll, cost.params, cost.macs])
    return text.getvalue().encode()
