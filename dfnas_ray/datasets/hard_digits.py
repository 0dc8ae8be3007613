"""Hard digits: scikit-learn's digits, shifted, with another digit laid over them, and noise.

No small network is right on all of them, so architectures differ in accuracy. It is a small task on which a search can
show what it is worth. All images are drawn from the bundled digits with fixed seeds; nothing is downloaded.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from pydantic import Field

from dfnas_ray.datasets.base import EVALUATION, DatasetSourceConfig, ImageDataset
from dfnas_ray.datasets.digits import LabelledTensors, load_split
from dfnas_ray.seeding import numpy_generator

MOST_DRAWS = 1000
"""Maximum number of draws of each digit. Draws that were read stay in memory: 0.3 MB for one draw of all digits."""

_SHIFT = 3  # pixels, to each side
_OVERLAY = 0.45  # weight of the other digit; the digit itself has 1, and the sum is scaled back to [0, 1]
_NOISE = 0.30  # standard deviation, of pixels in [0, 1]
_SEED = 0

_Pixels = np.ndarray[Any, np.dtype[np.float32]]


def draw_hard_digits(digits: LabelledTensors, *names: str | int) -> LabelledTensors:
    """Return one hard image of each digit.

    Args:
        digits: uint8 (N, 1, H, W) and their labels. Another digit of the set is laid over each one.
        names: The names of this draw. The same names give the same images.
    """
    rng = numpy_generator(_SEED, "hard-digits", *names)
    plain: _Pixels = digits.images[:, 0].numpy().astype(np.float32) / np.float32(255)
    count, (height, width) = len(plain), plain.shape[1:]
    shifts = rng.integers(-_SHIFT, _SHIFT + 1, (2, count, 2))
    others = (np.arange(count) + rng.integers(1, count, count)) % count
    noise = rng.standard_normal((count, height, width), dtype=np.float32)
    overlaid = (_shifted(plain, shifts[0]) + _OVERLAY * _shifted(plain[others], shifts[1])) / (1 + _OVERLAY)
    hard = overlaid + _NOISE * noise
    pixels = np.rint(np.clip(hard, 0, 1) * 255).astype(np.uint8)
    return LabelledTensors(torch.from_numpy(pixels).unsqueeze(1), digits.labels)


def _shifted(images: _Pixels, shifts: np.ndarray[Any, Any]) -> _Pixels:
    """Return the images (N, H, W), each moved by its own shift (N, 2); what comes in from outside is black."""
    count, height, width = images.shape
    padded = np.pad(images, ((0, 0), (_SHIFT, _SHIFT), (_SHIFT, _SHIFT)))
    rows = (_SHIFT + shifts[:, :1] + np.arange(height))[:, :, None]
    columns = (_SHIFT + shifts[:, 1:] + np.arange(width))[:, None, :]
    moved: _Pixels = padded[np.arange(count)[:, None, None], rows, columns]
    return moved


class _HardDigits:
    def __init__(self, split: Literal["train", "test"], draws: int):
        self._split, self._draws = split, draws
        self._plain: LabelledTensors | None = None
        self._drawn: dict[int, LabelledTensors] = {}
        self.description = f"the built-in hard digits ({split} split" + (f", {draws} draws)" if draws > 1 else ")")
        self.fingerprint = f"built-in, {split}, {draws}"

    @property
    def _digits(self) -> LabelledTensors:
        if self._plain is None:  # read at the first access
            self._plain = load_split(self._split)
        return self._plain

    def __len__(self) -> int:
        return self._draws * len(self._digits.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        draw, row = divmod(index, len(self._digits.labels))
        if draw not in self._drawn:
            self._drawn[draw] = draw_hard_digits(self._digits, self._split, draw)
        images, labels = self._drawn[draw]
        return Image.fromarray(images[row, 0].numpy()), int(labels[row])


class HardDigitsConfig(DatasetSourceConfig):
    """Hard digits: shifted by up to 3 pixels, with another digit over them, and noise. They need no file."""

    kind: Literal["hard_digits"] = "hard_digits"
    split: Literal["train", "test"] = Field(
        "test", description="test: the 540 digits that the built-in teachers have not seen; train: the other 1,257."
    )
    draws: int = Field(
        1,
        gt=0,
        le=MOST_DRAWS,
        description="Number of draws of each digit. One epoch over 20 draws is like 20 epochs over new images.",
    )

    def open(self, setting: str = EVALUATION) -> ImageDataset:
        """Return the dataset: one draw of all digits after another."""
        return _HardDigits(self.split, self.draws)
