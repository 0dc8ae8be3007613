"""The contract of a synthesizer: how images are made from a teacher."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import Field
from torch import nn

from dfnas_ray.config.member import MemberConfig
from dfnas_ray.config.registry import SettingValues
from dfnas_ray.limits import MANY
from dfnas_ray.storage.shards import SyntheticImages
from dfnas_ray.synthesis.settings import SetSettings
from dfnas_ray.teachers.base import Teacher

OnSteps = Callable[[int], None]
"""Called after each step with the number of images that made it."""


@dataclass(frozen=True)
class LossPoint:
    """The weighted loss terms at one step."""

    step: int
    losses: dict[str, float]


@dataclass(frozen=True)
class ShardImages:
    """The rows of one shard.

    Attributes:
        images: uint8 (N, C, H', W'): whole canvases.
        labels: int64 (N,), the class that was asked for.
        rounds: int64 (N,), 0 for images made from one-hot targets.
        logits: float32 (N, num_classes), the teacher's on the stored images' centres.
        curves: One loss curve per round.
        state: What the next shard of the same chain goes on from, as bytes; empty if none does.
    """

    images: np.ndarray[Any, np.dtype[np.uint8]]
    labels: np.ndarray[Any, np.dtype[np.int64]]
    rounds: np.ndarray[Any, np.dtype[np.int64]]
    logits: np.ndarray[Any, np.dtype[np.float32]]
    curves: list[list[LossPoint]]
    state: bytes = b""


@dataclass(frozen=True)
class StepKind:
    """Steps of one kind, that all take the same time.

    Attributes:
        first: Number of the first one in the rehearsal that is timed, from 0. Earlier ones warm up.
        end: Number of the one behind the last that is timed.
        steps: How many of those timed take as long as all of the kind in the whole set.
    """

    first: int
    end: int
    steps: float


@dataclass(frozen=True)
class Rehearsal:
    """A synthesis in the small.

    Attributes:
        method: The synthesizer, with settings that make a batch in a few steps of every kind.
        images_per_shard: Of the small set, which has one shard.
        parts: What is timed, and how much of it there is in the whole set.
    """

    method: SynthesizerConfig
    images_per_shard: int
    parts: tuple[StepKind, ...]


class Chain(ABC):
    """What was made before a shard by those that it goes on from."""

    @abstractmethod
    def state(self, shard: int) -> bytes:
        """Return the state that a shard left."""

    @abstractmethod
    def images(self, shard: int) -> SyntheticImages:
        """Return a shard's rows."""


class Synthesizer(ABC):
    """Makes shards of one set, on one device. Made once per process."""

    @abstractmethod
    def make(
        self, seed: int, shard: int, chain: Chain | None = None, on_steps: OnSteps = lambda images: None
    ) -> Iterator[ShardImages]:
        """Make a shard, and yield after each of its rounds what the shard would be if that round were its last.

        Its bytes depend on the teacher, the settings, the seed and its number, and on no worker.

        Args:
            seed: Of the set.
            shard: Its number.
            chain: what the shards before it left, if `SynthesizerConfig.predecessor` names one.
            on_steps: Told how far it is.

        Raises:
            SynthesisError: it cannot be made; names the setting to change.
        """


class SynthesizerConfig(MemberConfig):
    """What the settings of all synthesizers have in common. Each one defines its ``kind``."""

    if TYPE_CHECKING:
        kind: str

    batch_size: int = Field(50, gt=0, le=MANY, description="Images made together on one device.")

    @property
    def num_rounds(self) -> int:
        """Rounds in which a shard grows; after each of them it can be judged."""
        return 1

    @property
    def has_student(self) -> bool:
        """Whether a student is trained beside the images, which terms of the loss may look at."""
        return False

    @property
    def num_kept_rounds(self) -> int:
        """Rounds whose images a shard keeps: its rows are so many times ``images_per_shard``."""
        return 1

    @property
    def warmup_images(self) -> int:
        """Images at the beginning of a set that are not yet like the others."""
        return 0

    @property
    def default_regularizers(self) -> SettingValues:
        """Settings of ``synthesis.regularizers`` that suit this synthesizer better than the published ones."""
        return {}

    @property
    def scale_steps(self) -> tuple[int, ...]:
        """Optimiser steps at each resolution that a loss curve goes through."""
        return ()

    @property
    @abstractmethod
    def steps_per_image(self) -> float:
        """Optimiser steps of one image at most."""

    def image_steps(self, settings: SetSettings, shard: int) -> int:
        """Return the images times optimiser steps of one shard: the sum of what ``on_steps`` is told."""
        return round(settings.images_per_shard * self.steps_per_image)

    @abstractmethod
    def canvas_size(self, settings: SetSettings, height: int, width: int) -> tuple[int, int]:
        """Return height and width of a canvas for inputs of this size.

        Raises:
            ValueError: there is no canvas for them; names the settings.
        """

    def check_settings(self, settings: SetSettings) -> None:
        """Make sure that the settings of the set suit this synthesizer.

        Raises:
            ValueError: they do not; names the settings, without ``synthesis.``.
        """

    def check_teacher(self, teacher: Teacher, settings: SetSettings) -> None:
        """Make sure that this synthesizer can work with a teacher.

        Raises:
            SynthesisError: it cannot; says what to change.
        """

    def predecessor(self, shard: int, settings: SetSettings) -> int | None:
        """Return the shard that has to be made before this one; None if it depends on no other."""
        return None

    def rehearsal(self, settings: SetSettings, most: int) -> Rehearsal:
        """Return the synthesis in the small, from whose time that of the whole set follows.

        By default its own first steps: a synthesizer whose steps differ says which kinds there are, and how many of each.

        Args:
            settings: Of the whole set.
            most: Images in a batch at most: the time of a step grows with their number.
        """
        batch = min(self.batch_size, most)
        batches = settings.num_shards * settings.images_per_shard / batch
        small = self.model_copy(update={"batch_size": batch})
        return Rehearsal(small, batch, (StepKind(1, 4, batches * self.steps_per_image),))

    def load_student(self, state: bytes, teacher: Teacher) -> nn.Module:
        """Return the student that was trained beside the images, in evaluation mode, on the CPU.

        Args:
            state: That of the last shard of its chain.
            teacher: Whose student it is.
        """
        # Asked only of those whose ``has_student`` is true, and these define it.
        raise NotImplementedError(f"{type(self).__name__} says that it trains a student, and does not return it")

    @abstractmethod
    def synthesizer(self, teacher: Teacher, settings: SetSettings, device: torch.device) -> Synthesizer:
        """Return what makes the images.

        Raises:
            SynthesisError: these images cannot be asked of this teacher.
        """
