"""A teacher of one's own: a small residual network for the digits, trained on first use and kept as a file.

A source usually loads a file or asks a registry for it; this one needs neither, so that the example runs anywhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from safetensors.torch import load, save
from torch import Tensor, nn

from dfnas_example.space import PlainBlock
from dfnas_ray.datasets import digits
from dfnas_ray.seeding import fixed_threads, seed_everything, torch_generator
from dfnas_ray.storage.location import Location
from dfnas_ray.teachers import Teacher, TeacherSourceConfig
from dfnas_ray.teachers.base import freeze_teacher

MEAN, STD = (0.3056,), (0.3187,)  # of the training split's pixels


class DigitsResNetConfig(TeacherSourceConfig):
    """A residual network trained on 70 % of scikit-learn's digits on first use."""

    kind: Literal["digits_resnet"] = "digits_resnet"
    width: int = Field(16, gt=0, description="Channels of the first block.")
    epochs: int = Field(20, gt=0, description="Passes over the training split.")
    seed: int = Field(0, ge=0, description="Seed of the teacher's own training.")

    def load(self, cache: Location | Path) -> Teacher:
        """Load the network from the folder ``cache``, or train it (seconds) and keep it there."""
        file = Location.parse(cache) / f"digits-resnet-w{self.width}-e{self.epochs}-s{self.seed}.safetensors"
        seed_everything(self.seed)
        model = digits_resnet(self.width)
        if not file.exists():
            with fixed_threads(1):  # the same weights on every run
                train(model, self.epochs, self.seed)
            file.write_bytes(save(model.state_dict()))
        model.load_state_dict(load(file.read_bytes()))
        return freeze_teacher("digits_resnet", model, digits.IMAGE_SHAPE, MEAN, STD)


def digits_resnet(width: int) -> nn.Module:
    """Return the untrained network, from images (B, 1, H, W) to logits (B, 10)."""
    return nn.Sequential(
        PlainBlock(1, width, 3, stride=1),
        PlainBlock(width, 2 * width, 3, stride=2),
        PlainBlock(2 * width, 2 * width, 3, stride=1),
        PlainBlock(2 * width, 4 * width, 3, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, digits.NUM_CLASSES),
    )


def train(model: nn.Module, epochs: int, seed: int) -> None:
    """Train a network on the digits' training split, each batch shifted by up to two pixels."""
    images, labels = digits.load_split("train")
    x: Tensor = (images.float() / 255 - MEAN[0]) / STD[0]
    padded = F.pad(x, (2, 2, 2, 2), value=-MEAN[0] / STD[0])
    batches = range(0, len(x), 64)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(batches))
    generator = torch_generator(seed, "digits-resnet")
    model.train()
    for _ in range(epochs):
        order = torch.randperm(len(x), generator=generator)
        for start in batches:
            chosen = order[start : start + 64]
            top, left = torch.randint(0, 5, (2,), generator=generator).tolist()
            loss = F.cross_entropy(model(padded[chosen, :, top : top + 16, left : left + 16]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
