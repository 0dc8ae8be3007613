"""Other teachers of handwritten digits than the built-in one, to see on which of them the product's settings hold.

    python tests/benchmarks/digits_teachers.py --out teachers

trains each on the training split of scikit-learn's digits, as the built-in one is, and writes ``NAME.pt`` and the teacher
section of an experiment, ``NAME.yaml``. Their builders are here: run what uses them in this folder.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn
from torchvision.transforms.functional import to_pil_image

from dfnas_ray.datasets import digits
from dfnas_ray.datasets.base import to_uint8
from dfnas_ray.seeding import fixed_threads, seed_everything, torch_generator

MEAN, STD = 0.3056, 0.3187


class Residual(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, channels_in: int, channels: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.shortcut = nn.Sequential(nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


def conv(
    channels_in: int, channels: int, stride: int = 1, norm: Callable[[int], nn.Module] = nn.BatchNorm2d
) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False), norm(channels), nn.ReLU())


def separable(channels_in: int, channels: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_in, 3, stride, 1, groups=channels_in, bias=False),
        nn.BatchNorm2d(channels_in),
        nn.ReLU(),
        nn.Conv2d(channels_in, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
    )


def ended(*layers: nn.Module, channels: int) -> nn.Module:
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, digits.NUM_CLASSES))


def plain28(width: int = 16) -> nn.Module:
    return ended(conv(1, width), conv(width, 2 * width, 2), conv(2 * width, 4 * width, 2), channels=4 * width)


def residual28(width: int = 16) -> nn.Module:
    return ended(conv(1, width), Residual(width, 2 * width, 2), Residual(2 * width, 4 * width, 2), channels=4 * width)


def depthwise16(width: int = 24) -> nn.Module:
    return ended(
        conv(1, width), separable(width, 2 * width, 2), separable(2 * width, 4 * width, 2), separable(4 * width, 4 * width),
        channels=4 * width,
    )  # fmt: skip


def group_norm16(width: int = 16) -> nn.Module:
    def norm(channels: int) -> nn.Module:
        return nn.GroupNorm(4, channels)

    return ended(
        conv(1, width, 1, norm), conv(width, 2 * width, 2, norm), conv(2 * width, 4 * width, 2, norm),
        conv(4 * width, 4 * width, 1, norm), channels=4 * width,
    )  # fmt: skip


TEACHERS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "plain28": (plain28, 28),
    "residual28": (residual28, 28),
    "depthwise16": (depthwise16, 16),
    "group_norm16": (group_norm16, 16),
}


def load(split: Literal["train", "test"], size: int) -> tuple[Tensor, Tensor]:
    """Return normalised images (N, 1, size, size) and labels, made as the product makes them of files."""
    data = digits.load_split(split)
    images = torch.stack([to_uint8(to_pil_image(image), (1, size, size), split) for image in data.images])
    return (images.float() / 255 - MEAN) / STD, data.labels


def train(model: nn.Module, images: Tensor, labels: Tensor, epochs: int, seed: int) -> None:
    padded, size = F.pad(images, (2, 2, 2, 2), value=-MEAN / STD), images.shape[-1]
    generator = torch_generator(seed, "digits-teacher")
    steps = -(-len(images) // 64) * epochs
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=steps)
    for _ in range(epochs):
        for index in torch.randperm(len(images), generator=generator).split(64):
            top, left = torch.randint(0, 5, (2,), generator=generator).tolist()
            loss = F.cross_entropy(model(padded[index, :, top : top + size, left : left + size]), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def main() -> None:
    """Train and write every teacher, and print its accuracy on the test split."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("teachers"))
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("names", nargs="*", default=list(TEACHERS))
    arguments = parser.parse_args()
    arguments.out.mkdir(exist_ok=True, parents=True)
    for name in arguments.names:
        build, size = TEACHERS[name]
        seed_everything(arguments.seed)
        model = build()
        with fixed_threads(1):
            train(model, *load("train", size), arguments.epochs, arguments.seed)
            images, labels = load("test", size)
            with torch.no_grad():
                accuracy = float((model.eval()(images).argmax(1) == labels).float().mean())
        file = arguments.out / f"{name}.pt"
        torch.save(model.state_dict(), file)
        section = {
            "kind": "checkpoint", "checkpoint": str(file.resolve()), "builder": f"digits_teachers:{name}",
            "image_shape": [1, size, size], "mean": [MEAN], "std": [STD],
        }  # fmt: skip
        file.with_suffix(".yaml").write_text(yaml.safe_dump({"teacher": section}))
        parameters = sum(parameter.numel() for parameter in model.parameters())
        print(json.dumps({"name": name, "accuracy": round(accuracy, 4), "parameters": parameters}), flush=True)


if __name__ == "__main__":
    main()
