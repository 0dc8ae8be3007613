"""Event files for TensorBoard, with the curves of finished stages: ``RUN/tensorboard/STAGE-KEY/...``.

They are written when a stage is finished, from its artefacts. This package never reads them, so only curves are lost
with them.
"""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dfnas_ray.errors import first_line
from dfnas_ray.storage.location import Location

logger = logging.getLogger(__name__)

FOLDER = "tensorboard"
_FILE = "events.out.tfevents.0.dfnas"  # one name, so that a stage that is made again replaces it


class EventFile:
    """One run of TensorBoard. Values that are not finite are left out."""

    def __init__(self, writer: Any):
        self._writer = writer

    def scalar(self, name: str, value: float | None, step: int) -> None:
        """Add a point of a curve."""
        if value is not None and math.isfinite(value):
            self._writer.add_scalar(name, value, step)

    def images(self, name: str, images: np.ndarray[Any, Any], columns: int) -> None:
        """Add a grid of uint8 images (N, C, H, W), one row after the other."""
        count, channels, height, width = images.shape
        rows = -(-count // columns)
        grid = np.zeros((channels, rows * (height + 1), columns * (width + 1)), np.uint8)
        for number, image in enumerate(images):
            top, left = number // columns * (height + 1), number % columns * (width + 1)
            grid[:, top : top + height, left : left + width] = image
        self._writer.add_image(name, grid if channels in (1, 3) else grid[:1], 0)

    def hyperparameters(self, settings: Mapping[str, Any], figures: Mapping[str, float]) -> None:
        """Add a row to the table of hyper-parameters: plain settings by their dotted names, and their results."""
        from tensorboardX.summary import hparams

        plain = {name: value for name, value in settings.items() if isinstance(value, bool | int | float | str)}
        finite = {name: float(value) for name, value in figures.items() if math.isfinite(value)}
        for summary in hparams(plain, finite):
            self._writer.file_writer.add_summary(summary)
        for name, value in finite.items():
            self._writer.add_scalar(name, value, 0)


class EventLog:
    """The event files of one finished stage."""

    def __init__(self, folder: Location):
        self.folder = folder

    @contextmanager
    def run(self, name: str = "") -> Iterator[EventFile]:
        """Write one run of TensorBoard, of which a stage may have several. If that fails, only log a warning."""
        from tensorboardX import SummaryWriter

        try:
            with tempfile.TemporaryDirectory(prefix="dfnas-events-") as scratch:
                with SummaryWriter(scratch) as writer:
                    yield EventFile(writer)
                target = self.folder / name if name else self.folder
                content = b"".join(file.read_bytes() for file in sorted(Path(scratch).iterdir()))
                (target.make_dir() / _FILE).write_bytes(content)
        except Exception as error:  # of any kind: results must not depend on it
            logger.warning("There are no curves for TensorBoard in %s: %s", self.folder, first_line(error))
