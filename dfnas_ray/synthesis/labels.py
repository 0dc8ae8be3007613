"""Targets of inversion: balanced classes in round 0, then the teacher's own view of what it made.

Source: Liu et al. 2022, arXiv:2112.02086, Sec. 3.1 (recursive label calibration).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dfnas_ray.seeding import torch_generator


def class_of_slots(first_slot: int, num_slots: int, num_classes: int, seed: int) -> Tensor:
    """Return the class of each image slot, int64 (num_slots,).

    Slots are numbered through all shards. Every run of ``num_classes`` slots holds each class once, in an order drawn
    from the seed. So any set of shards is balanced, and each batch mixes its classes.
    """
    cycles = range(first_slot // num_classes, (first_slot + num_slots - 1) // num_classes + 1)
    orders = [torch.randperm(num_classes, generator=torch_generator(seed, "class-order", cycle)) for cycle in cycles]
    skipped = first_slot % num_classes
    return torch.cat(orders)[skipped : skipped + num_slots]


def one_hot_targets(classes: Tensor, num_classes: int) -> Tensor:
    """Return the targets of round 0: float (B, num_classes) distributions from classes (B,)."""
    return F.one_hot(classes, num_classes).float()


def calibrated_targets(previous_logits: Tensor, tau: float) -> Tensor:
    """Return the targets of later rounds: softmax(logits / tau) of the round before, (B, num_classes)."""
    return F.softmax(previous_logits.float() / tau, dim=1)


def draw_of_classes(named: Tensor, classes: Tensor, num_classes: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw for each class asked for one of the images that the teacher gives this class.

    Args:
        named: The classes (N,) that the teacher gives the images.
        classes: The classes (B,) asked for.
        num_classes: The number of classes.
        random: Makes the draws.

    Returns:
        The rows (B,) of the images, and whether the class has an image, (B,). Where it has none, the row is any.
    """
    order = named.argsort(stable=True)
    counts = named.bincount(minlength=num_classes)
    first = (counts.cumsum(0) - counts)[classes]
    draws = torch.randint(2**62, (len(classes),), generator=random)
    places = first + draws % counts[classes].clamp(min=1)
    return order[places.clamp(max=len(order) - 1)], counts[classes] > 0
