"""Accuracy on real, labelled images. This is the one place that reads them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from dfnas_ray.datasets.base import ImageDataset, iterate_batches
from dfnas_ray.teachers.base import Teacher


@torch.no_grad()
def evaluate_networks(
    networks: Mapping[str, nn.Module],
    teacher: Teacher,
    dataset: ImageDataset,
    device: torch.device,
    on_images: Callable[[int], object] = lambda count: None,
) -> dict[str, float]:
    """Return the top-1 accuracy of each network in [0, 1]; every image is decoded once.

    Args:
        networks: Take the teacher's normalised input (B, C, H, W).
        teacher: Its input statistics, shape and classes.
        dataset: Real images with labels.
        device: Where the networks run.
        on_images: Called after each batch with the number of images so far.

    Raises:
        DatasetError: an image, a label or the number of channels does not fit.
    """
    placed = {name: copy.deepcopy(network).to(device).eval() for name, network in networks.items()}  # theirs stay
    correct = dict.fromkeys(networks, 0)
    count = 0
    for images, labels in iterate_batches(dataset, teacher.image_shape, teacher.num_classes):
        x = teacher.normalize(images.to(device))
        target: Tensor = labels.to(device)
        for name, network in placed.items():
            correct[name] += int((network(x).argmax(1) == target).sum())
        count += len(labels)
        on_images(count)
    return {name: hits / count for name, hits in correct.items()}
