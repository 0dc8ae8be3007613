"""The built-in teacher: a small CNN for handwritten digits, trained on first use.

It makes the product's whole path runnable on a machine with nothing but the package, on a task that is real.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

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


def _train(model: nn.Module, epochs: int, seed: int) -> nn.Module:
    data = digits.load_split("train")
    x = (data.images.float() / 255 - _MEAN[0]) / _STD[0]
    padded = F.pad(x, (2, 2, 2, 2), value=-_MEAN[0] / _STD[0])  # a border of black, to shift within
    generator = torch_generator(seed, "digits-teacher")
    steps = -(-len(x) // _BATCH_SIZE) * epochs
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=steps)
    model.train()
    for _ in range(epochs):
        for index in torch.randperm(len(x), generator=generator).split(_BATCH_SIZE):
            top, left = torch.randint(0, 5, (2,), generator=generator).tolist()
            crop = padded[index, :, top : top + 16, left : left + 16]
            loss = F.cross_entropy(model(crop), data.labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model


class DigitsTeacherConfig(TeacherSourceConfig):
    """A small CNN trained on 70 % of scikit-learn's digits on first use; it needs no file."""

    kind: Literal["digits"] = "digits"
    width: int = Field(16, gt=0, le=1024, description="Channels of the first layer.")
    epochs: int = Field(30, gt=0, le=MANY, description="Passes over the training split.")
    seed: int = Field(0, ge=0, le=LARGEST_SEED, description="Seed of the teacher's own training.")

    def load(self, cache: Location | Path) -> Teacher:
        """Load the trained network from the folder ``cache``, or train it (seconds) and keep it there."""
        file = Location.parse(cache) / f"digits-w{self.width}-e{self.epochs}-s{self.seed}.safetensors"
        if not file.exists():
            seed_everything(self.seed)
            with fixed_threads(1):
                file.write_bytes(save(_train(DigitsCNN(self.width), self.epochs, self.seed).state_dict()))
        model = DigitsCNN(self.width)
        load_weights(
            model,
            _read(file),
            str(file),
            network=f"the digits network of teacher.width ({self.width})",
            remedy="Delete the file: the next command trains the teacher again.",
        )
        names = [str(digit) for digit in range(digits.NUM_CLASSES)]
        return freeze_teacher("digits", model, digits.IMAGE_SHAPE, _MEAN, _STD, class_names=names)


def _read(file: Location) -> dict[str, Tensor]:
    try:
        return load(file.read_bytes())
    except SafetensorError as error:
        raise TeacherError(
            f"The file {file} is damaged ({error}). Delete it: the next command trains the teacher again."
        ) from error
