"""The truth about architectures: what each one reaches on real images when it is trained on real, labelled ones.

FOLDER/trained-00000.json ...       some architectures each, by their texts
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
"""Of a table: `dfnas benchmark` takes the first two if nothing else is said. Accuracies are in percent."""


class TrueFigures(BaseModel):
    """What one trained architecture reached.

    Attributes:
        accuracy: Top-1, in [0, 1].
        nll: Mean negative log likelihood of the labels, in nats; None where the training diverged.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    accuracy: float = Field(ge=0, le=1)
    nll: float | None = Field(ge=0)

    @classmethod
    def of(cls, grade: Grade) -> TrueFigures:
        """Return what is recorded of a grade."""
        return cls(accuracy=grade.accuracy, nll=grade.nll if math.isfinite(grade.nll) else None)


class TrainedChunk(BaseModel):
    """Architectures that were trained by one task: ``trained-00000.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds: Seconds
    figures: dict[str, TrueFigures] = Field(min_length=1)


class RecordedTruth:
    """What is recorded in a folder, and what is added.

    Attributes:
        figures: By the architecture's text.
        seconds: That workers spent on them.
    """

    def __init__(self, folder: Location, say: Say = logger.warning):
        """Read everything that is there. What was altered is named and removed, and is trained again."""
        self.figures: dict[str, TrueFigures] = {}
        self.seconds = 0.0
        self._files = NumberedFiles(folder, "trained", TrainedChunk)
        self._files.read(self._take, say, lambda chunk: "")

    def add(self, chunk: TrainedChunk) -> None:
        """Write a chunk."""
        self._files.add(chunk.model_dump(mode="json"))
        self._take(chunk)

    def missing(self, texts: Iterable[str]) -> list[str]:
        """Return those that were not trained yet."""
        return [text for text in texts if text not in self.figures]

    def _take(self, chunk: TrainedChunk) -> None:
        self.figures.update(chunk.figures)
        self.seconds += chunk.seconds


def truth_table(space: SearchSpace, texts: Sequence[str], figures: Mapping[str, TrueFigures]) -> bytes:
    """Return the CSV of some architectures, which `dfnas benchmark` reads like any table."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for name in texts:
        cost, known = space.cost(space.decode(name)), figures[name]
        nll = "" if known.nll is None else f"{known.nll:.6f}"
        writer.writerow([name, f"{100 * known.accuracy:.4f}", nll, cost.params, cost.macs])
    return text.getvalue().encode()
