"""scikit-learn's bundled handwritten digits: 1,797 real grey images, here at 16x16.

Source: Alpaydin & Kaynak 1998, UCI Optical Recognition of Handwritten Digits. The images come with scikit-learn, so
nothing is downloaded.
"""

from __future__ import annotations

from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from dfnas_ray.datasets.base import EVALUATION, DatasetSourceConfig, ImageDataset

IMAGE_SHAPE = (1, 16, 16)
NUM_CLASSES = 10
TEST_FRACTION = 0.3
_SPLIT_SEED = 0


class LabelledTensors(NamedTuple):
    """uint8 images (N, 1, 16, 16) and int64 labels (N,)."""

    images: Tensor
    labels: Tensor


def load_split(split: Literal["train", "test"]) -> LabelledTensors:
    """Return one side of the fixed, stratified 70 : 30 split.

    ``train`` is for the built-in teacher's training; ``test`` is for evaluation and for nothing else.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    indices = np.arange(len(bunch.target))
    train, test = train_test_split(indices, test_size=TEST_FRACTION, stratify=bunch.target, random_state=_SPLIT_SEED)
    chosen = np.sort(train if split == "train" else test)
    grey = torch.from_numpy(bunch.images[chosen] / 16.0).float().unsqueeze(1)  # (N, 1, 8, 8) in [0, 1]
    enlarged = F.interpolate(grey, size=IMAGE_SHAPE[1:], mode="bilinear", align_corners=False)
    images = (enlarged * 255).round().to(torch.uint8)
    return LabelledTensors(images, torch.from_numpy(bunch.target[chosen].astype(np.int64)))


class _Digits:
    description = "the built-in digits (test split)"
    fingerprint = "built-in"

    @cached_property
    def data(self) -> LabelledTensors:
        """The images and labels, read at the first access."""
        return load_split("test")

    def __len__(self) -> int:
        return len(self.data.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.data.images[index, 0].numpy()), int(self.data.labels[index])


class DigitsConfig(DatasetSourceConfig):
    """The test split of scikit-learn's handwritten digits; it needs no file."""

    kind: Literal["digits"] = "digits"

    def open(self, setting: str = EVALUATION) -> ImageDataset:
        """Return the 540 test images, which the built-in teacher has not seen."""
        return _Digits()
