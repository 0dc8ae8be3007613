"""One shard: its share of the images, through all rounds of label calibration.

The rounds chain inside the shard, so no barrier stops a cluster, and a shard depends on nothing but the teacher, the
settings, the seed and its number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dfnas_ray.errors import SynthesisError
from dfnas_ray.seeding import derive_seed, seed_everything, torch_generator
from dfnas_ray.synthesis.inversion import Inverter, LossPoint, OnSteps
from dfnas_ray.synthesis.labels import calibrated_targets, class_of_slots, one_hot_targets


@dataclass(frozen=True)
class ShardImages:
    """The rows of one shard, by round and then by slot.

    Attributes:
        images: uint8 (N, C, H', W').
        labels: int64 (N,), the class that round 0 asked for.
        rounds: int64 (N,), 0 for images made from one-hot targets.
        logits: float32 (N, num_classes), the teacher's on the stored images' centres.
        curves: Per round, the loss curve averaged over the shard's batches.
    """

    images: np.ndarray[Any, np.dtype[np.uint8]]
    labels: np.ndarray[Any, np.dtype[np.int64]]
    rounds: np.ndarray[Any, np.dtype[np.int64]]
    logits: np.ndarray[Any, np.dtype[np.float32]]
    curves: list[list[LossPoint]]


def synthesize_rounds(
    inverter: Inverter, seed: int, shard: int, on_steps: OnSteps = lambda images: None
) -> Iterator[ShardImages]:
    """Make shard number ``shard``, and yield after each round what the shard would be if that round were its last.

    Raises:
        SynthesisError: the loss is no longer finite (names the shard).
    """
    config, num_classes = inverter.config, inverter.teacher.num_classes
    classes = class_of_slots(shard * config.images_per_shard, config.images_per_shard, num_classes, seed)
    seed_everything(derive_seed(seed, "shard", shard))
    targets = one_hot_targets(classes, num_classes)
    finished: list[tuple[Tensor, Tensor, int]] = []
    curves = []
    for round_index in range(config.rounds):
        images, curve = [], []
        for number, batch in enumerate(targets.split(config.batch_size)):
            generator = torch_generator(seed, "shard", shard, "round", round_index, "batch", number)
            try:
                batch_images, batch_curve = inverter.invert(batch, generator, on_steps)
            except SynthesisError as error:
                raise SynthesisError(f"Shard {shard}, round {round_index}: {error}") from error
            images.append(batch_images)
            curve.append(batch_curve)
        made = torch.cat(images)
        logits = torch.cat([inverter.label(batch) for batch in made.split(config.batch_size)])
        targets = calibrated_targets(logits, config.tau)
        curves.append(_mean_curve(curve))
        if config.keep == "last":
            finished.clear()
        finished.append((made, logits, round_index))
        yield ShardImages(
            images=torch.cat([images for images, _, _ in finished]).numpy(),
            labels=classes.repeat(len(finished)).numpy(),
            rounds=np.repeat([index for _, _, index in finished], len(classes)).astype(np.int64),
            logits=torch.cat([logits for _, logits, _ in finished]).numpy(),
            curves=list(curves),
        )


def _mean_curve(curves: list[list[LossPoint]]) -> list[LossPoint]:
    return [
        LossPoint(
            points[0].step,
            {name: round(float(np.mean([p.losses[name] for p in points])), 6) for name in points[0].losses},
        )
        for points in zip(*curves, strict=True)
    ]
