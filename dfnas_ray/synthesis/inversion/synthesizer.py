"""One shard: its share of the images, through all rounds of label calibration.

The rounds are chained within a shard, so workers never wait for each other. A shard depends only on the teacher, the
settings, the seed and its number.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from dfnas_ray.errors import SynthesisError
from dfnas_ray.seeding import derive_seed, seed_everything, torch_generator
from dfnas_ray.synthesis.base import Chain, LossPoint, OnSteps, ShardImages, Synthesizer
from dfnas_ray.synthesis.checks import check_first_batch
from dfnas_ray.synthesis.inversion.config import InversionSettings
from dfnas_ray.synthesis.inversion.inverter import Inverter
from dfnas_ray.synthesis.labels import calibrated_targets, class_of_slots, one_hot_targets
from dfnas_ray.synthesis.settings import SetSettings
from dfnas_ray.teachers.base import Teacher


class InversionConfig(InversionSettings):
    """Model inversion, as a synthesizer."""

    def synthesizer(self, teacher: Teacher, settings: SetSettings, device: torch.device) -> Synthesizer:
        """See `SynthesizerConfig`."""
        return Inversion(teacher, settings, self, device)


class Inversion(Synthesizer):
    """Makes shards by inversion.

    Raises:
        SynthesisError: this teacher cannot make these images.
    """

    def __init__(self, teacher: Teacher, settings: SetSettings, config: InversionSettings, device: torch.device):
        self.inverter = Inverter(teacher, settings, config, device)
        self.settings, self.config = settings, config

    def make(
        self, seed: int, shard: int, chain: Chain | None = None, on_steps: OnSteps = lambda images: None
    ) -> Iterator[ShardImages]:
        """See `Synthesizer`."""
        inverter, config = self.inverter, self.config
        size, num_classes = self.settings.images_per_shard, inverter.teacher.num_classes
        classes = class_of_slots(shard * size, size, num_classes, seed)
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
                if round_index == number == 0:
                    fell = batch_curve[-1].losses["cross_entropy"] < 0.995 * batch_curve[0].losses["cross_entropy"]
                    steps = sum(config.scale_steps)
                    asked = classes[: len(batch_images)]
                    check_first_batch(inverter.teacher, asked, inverter.label(batch_images), steps, fell)
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
