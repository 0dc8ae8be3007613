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
