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
"""Called after each optimiser step, with the number of images in it."""


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
        labels: int64 (N,), the classes that were asked for.
        rounds: int64 (N,), 0 for images made from one-hot targets.
        logits: float32 (N, num_classes), the teacher's logits on the centres of the stored images.
        curves: One loss curve per round.
        state: The state from which the next shard of the same chain goes on, as bytes; empty if there is no such shard.
    """

    images: np.ndarray[Any, np.dtype[np.uint8]]
    labels: np.ndarray[Any, np.dtype[np.int64]]
    rounds: np.ndarray[Any, np.dtype[np.int64]]
    logits: np.ndarray[Any, np.dtype[np.float32]]
    curves: list[list[LossPoint]]
    state: bytes = b""


@dataclass(frozen=True)
class StepKind:
    """Steps of one kind, which all take the same time.

    Attributes:
        first: Number of the first step of the rehearsal that is timed, from 0. Earlier steps are warm-up.
        end: Number of the step after the last one that is timed.
        steps: How many steps of this kind the whole set would take with the batch size of the rehearsal.
        is_compiled: Whether the whole set compiles them on a CPU; a rehearsal compiles nothing.
    """

    first: int
    end: int
    steps: float
    is_compiled: bool = False


@dataclass(frozen=True)
class Rehearsal:
    """A small synthesis, timed to estimate how long the whole one takes.

    Attributes:
        method: The synthesizer, with settings that make a batch in a few steps of every kind.
        images_per_shard: The number of images in the small set, which has one shard.
        parts: The steps that are timed, and how many of them the whole set takes.
    """

    method: SynthesizerConfig
    images_per_shard: int
    parts: tuple[StepKind, ...]


class Chain(ABC):
    """The earlier shards from which a shard goes on: their states and their images."""

    @abstractmethod
    def state(self, shard: int) -> bytes:
        """Return the state that a shard left."""

    @abstractmethod
    def images(self, shard: int) -> SyntheticImages:
        """Return the rows of a shard."""


class Synthesizer(ABC):
    """Makes the shards of one set on one device. Each process has one synthesizer."""

    @abstractmethod
    def make(
        self, seed: int, shard: int, chain: Chain | None = None, on_steps: OnSteps = lambda images: None
    ) -> Iterator[ShardImages]:
        """Make a shard, and yield after each of its rounds what the shard would be if that round were its last.

        Its bytes depend only on the teacher, the settings, the seed and its number. They are the same on every worker.

        Args:
            seed: The seed of the set.
            shard: The number of the shard.
            chain: The earlier shards of the chain, if `SynthesizerConfig.predecessor` names one.
            on_steps: Called after each step with the number of images in it.

        Raises:
            SynthesisError: it cannot be made; names the setting to change.
        """


class SynthesizerConfig(MemberConfig):
    """The common settings of all synthesizers. Each synthesizer defines its ``kind``."""

    if TYPE_CHECKING:
        kind: str

    batch_size: int = Field(50, gt=0, le=MANY, description="Images made together on one device.")

    @property
    def num_rounds(self) -> int:
        """Number of rounds in which a shard is made. It can be judged after each of them."""
        return 1

    @property
    def has_student(self) -> bool:
        """Whether a student is trained beside the images. Terms of the loss may use it."""
        return False

    @property
    def num_kept_rounds(self) -> int:
        """Number of rounds whose images a shard keeps. It has this many times ``images_per_shard`` rows."""
        return 1

    @property
    def warmup_images(self) -> int:
        """Number of images at the beginning of a set that are not yet like the others."""
        return 0

    @property
    def default_regularizers(self) -> SettingValues:
        """Settings of ``synthesis.regularizers`` that suit this synthesizer better than the published ones."""
        return {}

    @property
    def scale_steps(self) -> tuple[int, ...]:
        """Optimiser steps at each resolution of a loss curve, in order."""
        return ()

    @property
    @abstractmethod
    def steps_per_image(self) -> float:
        """Optimiser steps of one image at most."""

    def image_steps(self, settings: SetSettings, shard: int) -> int:
        """Return images times optimiser steps of one shard: the sum of all numbers given to ``on_steps``."""
        return round(settings.images_per_shard * self.steps_per_image)

    @abstractmethod
    def canvas_size(self, settings: SetSettings, height: int, width: int) -> tuple[int, int]:
        """Return the height and width of a canvas for inputs of this size.

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
        """Return a small synthesis, from whose time the time of the whole set is estimated.

        By default these are its own first steps. A synthesizer with several kinds of steps overrides this, and returns
        how many steps of each kind there are.

        Args:
            settings: The settings of the whole set.
            most: Maximum number of images in a batch, because the time of a step grows with it.
        """
        batch = min(self.batch_size, most)
        batches = settings.num_shards * settings.images_per_shard / batch
        small = self.model_copy(update={"batch_size": batch})
        return Rehearsal(small, batch, (StepKind(1, 4, batches * self.steps_per_image),))

    def load_student(self, state: bytes, teacher: Teacher) -> nn.Module:
        """Return the student that was trained beside the images, in evaluation mode, on the CPU.

        Args:
            state: The state of the last shard of its chain.
            teacher: The teacher of the student.
        """
        # Called only where ``has_student`` is true; such a synthesizer overrides it.
        raise NotImplementedError(f"{type(self).__name__} says that it trains a student, and does not return it")

    @abstractmethod
    def synthesizer(self, teacher: Teacher, settings: SetSettings, device: torch.device) -> Synthesizer:
        """Return the synthesizer that makes the images.

        Raises:
            SynthesisError: this teacher cannot make these images.
        """
