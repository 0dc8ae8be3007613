"""Accuracy on real, labelled images."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfnas_ray.datasets.base import ImageDataset, iterate_batches, numbering_of
from dfnas_ray.datasets.numbering import better_numbering
from dfnas_ray.errors import ConfigError
from dfnas_ray.ops.batching import batch_size_for
from dfnas_ray.ops.networks import copy_network, evaluation_mode
from dfnas_ray.surroundings import torch_settings_kept
from dfnas_ray.teachers.base import Teacher
from dfnas_ray.teachers.guarded import logits_of

logger = logging.getLogger(__name__)

_BATCH_SIZE = 256


Confusion: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
"""Counts of images (K, K), by label (rows) and by the class that a network predicts (columns)."""

Classes: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
"""Class indices (N,)."""


LabelledImages: TypeAlias = tuple[Tensor, Tensor]
"""A batch: images (B, C, H, W), and labels, int64 (B,)."""


@dataclass(frozen=True)
class Guesses:
    """The class that each network predicts for each image.

    Attributes:
        labels: The true classes of the images.
        of: The predicted classes by network, in the same order.
        num_classes: Number of classes of the teacher.
    """

    labels: Classes
    of: dict[str, Classes]
    num_classes: int

    def confusion(self, name: str) -> Confusion:
        """Return the confusion matrix of a network."""
        counts = np.zeros((self.num_classes,) * 2, dtype=np.int64)
        np.add.at(counts, (self.labels, self.of[name]), 1)
        return counts

    def right(self, name: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return on which images (N,) a network is right."""
        right: np.ndarray[Any, np.dtype[np.bool_]] = self.of[name] == self.labels
        return right

    def accuracy(self, name: str) -> float:
        """Return a network's top-1 accuracy in [0, 1]."""
        return int(self.right(name).sum()) / len(self.labels)

    def only_right(self, one: str, other: str) -> tuple[int, int]:
        """Return two counts: the images on which only ``one`` is right, and those on which only ``other`` is right."""
        first, second = self.right(one), self.right(other)
        return int((first & ~second).sum()), int((second & ~first).sum())


def evaluate_networks(
    networks: Mapping[str, nn.Module],
    teacher: Teacher,
    dataset: ImageDataset,
    device: torch.device,
    on_images: Callable[[int], object] = lambda count: None,
) -> dict[str, float]:
    """Return the top-1 accuracy of each network in [0, 1]; see `guess_classes`."""
    guesses = guess_classes(networks, teacher, dataset, device, on_images)
    return {name: guesses.accuracy(name) for name in networks}


@torch.no_grad()
def guess_classes(
    networks: Mapping[str, nn.Module],
    teacher: Teacher,
    dataset: ImageDataset,
    device: torch.device,
    on_images: Callable[[int], object] = lambda count: None,
) -> Guesses:
    """Return the class that each network predicts for each image; every image is decoded once.

    Args:
        networks: The networks, which take the teacher's normalised input (B, C, H, W).
        teacher: The teacher, whose input statistics, shape and classes apply.
        dataset: Real images with labels.
        device: The device on which the networks run.
        on_images: Called after each batch with the number of images so far.

    Raises:
        DatasetError: an image, a label or the number of channels does not fit.
        ConfigError: a network has another number of classes.
    """
    placed = {
        name: evaluation_mode(copy_network(network).to(device)) for name, network in networks.items()
    }  # copies: the caller's networks stay where they are
    named: dict[str, list[Classes]] = {name: [] for name in networks}
    given: list[Classes] = []
    count = 0
    batch_size = batch_size_for(teacher.image_shape, _BATCH_SIZE, device)
    for images, labels in _batches(dataset, teacher, batch_size):
        x = teacher.normalize(images.to(device))
        for name, network in placed.items():
            with torch_settings_kept():  # a network may change them, and its input; some refuse a single image
                logits = logits_of(network(x.repeat(2, 1, 1, 1) if len(x) == 1 else x.clone()))[: len(x)]
            if logits.ndim != 2 or logits.shape[1] != teacher.num_classes:
                raise ConfigError(
                    f"networks.{name} returns {tuple(logits.shape)}, and the teacher has {teacher.num_classes} classes. Give "
                    "networks with the same classes."
                )
            named[name].append(logits.argmax(1).cpu().numpy())
        given.append(labels.numpy())
        count += len(labels)
        on_images(count)
    labels_of_all = np.concatenate(given)
    guesses = Guesses(
        labels_of_all, {name: np.concatenate(parts) for name, parts in named.items()}, teacher.num_classes
    )
    best = max(networks, key=guesses.accuracy)
    numbering = numbering_of(dataset)
    if said := better_numbering(guesses.confusion(best), numbering.names if numbering else None):
        logger.warning("%s: %s", best, said)
    return guesses


def _batches(dataset: ImageDataset, teacher: Teacher, batch_size: int) -> Iterator[LabelledImages]:
    return iterate_batches(
        dataset, teacher.image_shape, teacher.num_classes, batch_size, teacher.class_names, teacher.resizing
    )


class Grade(NamedTuple):
    """Accuracy and loss of a network on labelled images.

    Attributes:
        accuracy: Top-1, in [0, 1].
        nll: Mean negative log likelihood of the labels, in nats; not finite if the network's logits are not.
    """

    accuracy: float
    nll: float


def decode_all(dataset: ImageDataset, teacher: Teacher) -> list[LabelledImages]:
    """Return all images, uint8, in batches, so that they are decoded only once for many networks.

    Raises:
        DatasetError: an image, a label or the number of channels does not fit.
    """
    return list(_batches(dataset, teacher, _BATCH_SIZE))


def normalised(batches: Sequence[LabelledImages], teacher: Teacher, device: torch.device) -> list[LabelledImages]:
    """Return decoded images, normalised for the networks, on a device."""
    return [(teacher.normalize(images.to(device)), labels.to(device)) for images, labels in batches]


@torch.no_grad()
def grade(network: nn.Module, batches: Sequence[LabelledImages]) -> Grade:
    """Return accuracy and negative log likelihood of a network in evaluation mode on normalised images."""
    right, loss, count = 0, 0.0, 0
    for images, labels in batches:
        with torch_settings_kept():  # a network may change torch's settings, and its input
            logits = logits_of(network(images.clone())).float()
        right += int((logits.argmax(1) == labels).sum())
        loss += F.cross_entropy(logits, labels, reduction="sum").item()
        count += len(labels)
    return Grade(right / count, loss / count)
