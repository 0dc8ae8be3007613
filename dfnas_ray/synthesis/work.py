"""The work on shards as it is sent to workers.

This module imports little, because many worker processes start, and they start often.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from dfnas_ray.storage.manifest import ManifestEntry
from dfnas_ray.synthesis.job import ShardJob
from dfnas_ray.synthesis.quality import QualityReport, measure_quality
from dfnas_ray.synthesis.synthesizers import make_synthesizer

if TYPE_CHECKING:
    from dfnas_ray.progress import Board
    from dfnas_ray.storage.shards import SyntheticImages
    from dfnas_ray.storage.shared import Shared
    from dfnas_ray.teachers.base import Teacher


@dataclass(frozen=True)
class MakeShards:
    """The work on shards: synthesize, label and commit them one at a time."""

    teacher: Shared[Teacher]
    job: ShardJob
    board: Board

    def __call__(self, device: torch.device) -> Callable[[int], ManifestEntry]:
        """Return the function that makes one shard."""
        config = self.job.config
        synthesizer = make_synthesizer(config.method, self.teacher.get(), config, device)

        def make(shard: int) -> ManifestEntry:
            write, done = self.board.writer(f"shard {shard}"), 0

            def on_steps(images: int) -> None:
                nonlocal done
                done += images
                write(done)

            *_, made = synthesizer.make(self.job.seed, shard, self.job, on_steps)
            return self.job.commit(made, shard)

        return make


@dataclass(frozen=True)
class MeasureQuality:
    """The measurement of a finished set on a worker: the driver never holds the images."""

    teacher: Shared[Teacher]
    images: Shared[SyntheticImages]

    def __call__(self, device: torch.device) -> Callable[[str], QualityReport]:
        """Return the function that measures the quality."""
        return lambda _: measure_quality(self.teacher.get().to(device), self.images.get())
