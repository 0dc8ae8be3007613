"""The built-in teacher of the hard digits: the digits network, trained on images that are drawn anew in every epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from dfnas_ray.datasets.digits import load_split
from dfnas_ray.datasets.hard_digits import MOST_DRAWS, draw_hard_digits
from dfnas_ray.limits import LARGEST_SEED
from dfnas_ray.storage.location import Location
from dfnas_ray.teachers.base import Teacher, TeacherSourceConfig
from dfnas_ray.teachers.digits import DigitsCNN, freeze_digits_cnn, kept_digits_cnn, train_digits_cnn

_MEAN, _STD = (0.3197,), (0.3083,)  # of twenty draws of the training split


class HardDigitsTeacherConfig(TeacherSourceConfig):
    """A small CNN trained on the hard digits' training split on first use; it needs no file."""

    kind: Literal["hard_digits"] = "hard_digits"
    width: int = Field(24, gt=0, le=1024, description="Channels of the first layer.")
    epochs: int = Field(
        30, gt=0, le=MOST_DRAWS, description="Passes over the training split, each with newly drawn images."
    )
    seed: int = Field(0, ge=0, le=LARGEST_SEED, description="Seed of the teacher's own training.")

    def load(self, cache: Location | Path) -> Teacher:
        """Load the trained network from the folder ``cache``, or train it (half a minute) and keep it there."""
        file = Location.parse(cache) / f"hard-digits-w{self.width}-e{self.epochs}-s{self.seed}.safetensors"
        return freeze_digits_cnn("hard digits", kept_digits_cnn(file, self.width, self._train), _MEAN, _STD)

    def _train(self) -> DigitsCNN:
        plain = load_split("train")
        drawn: dict[int, Tensor] = {}

        def view(epoch: int, rows: Tensor, generator: torch.Generator) -> Tensor:
            if epoch not in drawn:
                drawn.clear()
                pixels = draw_hard_digits(plain, "train", epoch).images
                drawn[epoch] = (pixels.float() / 255 - _MEAN[0]) / _STD[0]
            return drawn[epoch][rows]

        return train_digits_cnn(self.width, plain.labels, view, self.epochs, self.seed)
