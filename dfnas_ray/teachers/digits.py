"""The first built-in teacher: a small CNN for handwritten digits, trained on first use.

With it, a whole experiment runs on a real task, and needs nothing but the package.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from dfnas_ray.datasets import digits
from dfnas_ray.errors import TeacherError
from dfnas_ray.limits import LARGEST_SEED, MANY
from dfnas_ray.ops.blocks import ConvBNReLU
from dfnas_ray.seeding import fixed_threads, seed_everything, torch_generator
from dfnas_ray.storage.location import Location
from dfnas_ray.teachers.base import Teacher, TeacherSourceConfig, freeze_teacher
from dfnas_ray.teachers.checkpoint import load_weights

_BATCH_SIZE = 64
_MEAN, _STD = (0.3056,), (0.3187,)  # of the training split's pixels

View: TypeAlias = Callable[[int, Tensor, torch.Generator], Tensor]
"""Returns normalised training images (B, 1, H, W) for an epoch and rows (B,); a generator draws their variation."""


class DigitsCNN(nn.Module):
    """Five convolutions with BatchNorm, global average pooling, one linear layer; any input size from 4x4."""

    def __init__(self, width: int = 16, num_classes: int = digits.NUM_CLASSES):
        super().__init__()
        self.features = nn.Sequential(
            ConvBNReLU(1, width, 3),
            ConvBNReLU(width, 2 * width, 3, stride=2),
            ConvBNReLU(2 * width, 2 * width, 3),
            ConvBNReLU(2 * width, 4 * width, 3, stride=2),
            ConvBNReLU(4 * width, 4 * width, 3),
        )
        self.classifier = nn.Linear(4 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 1, H, W) to logits (B, num_classes)."""
        logits: Tensor = self.classifier(F.adaptive_avg_pool2d(self.features(x), 1).flatten(1))
        return logits


def train_digits_cnn(width: int, labels: Tensor, view: View, epochs: int, seed: int) -> DigitsCNN:
    """Return a network of this width, trained from scratch.

    Args:
        width: Number of channels of the first layer.
        labels: int64 (N,), the labels of the training images.
        view: The function that returns training images.
        epochs: Number of passes over them.
        seed: The seed of all random numbers.
    """
    seed_everything(seed)
    model = DigitsCNN(width)
    generator = torch_generator(seed, "digits-teacher")
    steps = -(-len(labels) // _BATCH_SIZE) * epochs
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=steps)
    model.train()
    for epoch in range(epochs):
        for rows in torch.randperm(len(labels), generator=generator).split(_BATCH_SIZE):
            loss = F.cross_entropy(model(view(epoch, rows, generator)), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model


def kept_digits_cnn(file: Location, width: int, train: Callable[[], DigitsCNN]) -> DigitsCNN:
    """Return the network from a file. If there is no file, train the network on one thread and write it.

    Raises:
        TeacherError: the file is damaged, or holds another network.
    """
    if not file.exists():
        with fixed_threads(1):
            file.write_bytes(save(train().state_dict()))
    model = DigitsCNN(width)
    load_weights(
        model,
        _read(file),
        str(file),
        network=f"the digits network of teacher.width ({width})",
        remedy="Delete the file: the next command trains the teacher again.",
    )
    return model


def freeze_digits_cnn(name: str, model: DigitsCNN, mean: tuple[float], std: tuple[float]) -> Teacher:
    """Return the teacher of the ten digits."""
    names = [str(digit) for digit in range(digits.NUM_CLASSES)]
    return freeze_teacher(name, model, digits.IMAGE_SHAPE, mean, std, class_names=names)


class DigitsTeacherConfig(TeacherSourceConfig):
    """A small CNN trained on 70 % of scikit-learn's digits on first use; it needs no file."""

    kind: Literal["digits"] = "digits"
    width: int = Field(16, gt=0, le=1024, description="Channels of the first layer.")
    epochs: int = Field(30, gt=0, le=MANY, description="Passes over the training split.")
    seed: int = Field(0, ge=0, le=LARGEST_SEED, description="Seed of the teacher's own training.")

    def load(self, cache: Location | Path) -> Teacher:
        """Load the trained network from the folder ``cache``, or train it (seconds) and keep it there."""
        file = Location.parse(cache) / f"digits-w{self.width}-e{self.epochs}-s{self.seed}.safetensors"
        return freeze_digits_cnn("digits", kept_digits_cnn(file, self.width, self._train), _MEAN, _STD)

    def _train(self) -> DigitsCNN:
        data = digits.load_split("train")
        x = (data.images.float() / 255 - _MEAN[0]) / _STD[0]
        padded = F.pad(x, (2, 2, 2, 2), value=-_MEAN[0] / _STD[0])  # a border of black, to shift within

        def view(epoch: int, rows: Tensor, generator: torch.Generator) -> Tensor:
            top, left = torch.randint(0, 5, (2,), generator=generator).tolist()
            return padded[rows, :, top : top + 16, left : left + 16]

        return train_digits_cnn(self.width, data.labels, view, self.epochs, self.seed)


def _read(file: Location) -> dict[str, Tensor]:
    try:
        return load(file.read_bytes())
    except SafetensorError as error:
        raise TeacherError(
            f"The file {file} is damaged ({error}). Delete it: the next command trains the teacher again."
        ) from error
