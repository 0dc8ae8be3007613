"""What algorithms say of themselves to features that not all of them serve. Each question has an answer by default."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import BaseModel

from dfnas_ray.config.registry import SettingValues
from dfnas_ray.search_spaces.base import SearchSpace


class StreamingFeatures:
    """Asked by the search that starts before all images are ready."""

    trains_by_epochs: ClassVar[bool] = False
    """Whether it learns from the images epoch by epoch before candidates are compared."""


class ExecutionFeatures:
    """Asked before work begins in a single process."""

    @property
    def needs_many_workers(self) -> str:
        """Why it cannot search in a single process, and what to do; empty if it can."""
        return ""


class PlanningFeatures:
    """Asked by whoever estimates how long a search takes, from a few steps and candidates in the small."""

    @property
    def num_passes(self) -> float | None:
        """Passes over the training images before candidates are measured; None: one for each of its epochs."""
        return None

    @property
    def passes_per_epoch(self) -> float:
        """Those that one call of `SearchAlgorithm.train_epoch` makes."""
        return 1.0

    @property
    def num_candidates(self) -> int | None:
        """Candidates that one search measures at most; None: as many in each of its steps as in the first."""
        return None

    def images_per_candidate(self, train: int, validation: int) -> float:
        """Return how many images the measurement of one candidate goes through, relative to which it takes its time.

        Args:
            train: Images to learn from.
            validation: Images that judge.
        """
        return 1.0


class FileFeatures:
    """Asked of algorithms that read files, by what a search's result depends on."""

    @property
    def files(self) -> tuple[str, ...]:
        """Files that it reads: what a search finds depends on what they hold."""
        return ()

    def check_files(self, space: SearchSpace) -> None:
        """Make sure that its files can be read and are for this space.

        Raises:
            ConfigError: they are not.
        """


class RankingFeatures:
    """Asked by the benchmark, in which algorithms put given architectures in order."""

    cannot_rank: ClassVar[str] = ""
    """Why it cannot put given architectures in order; empty if it can."""

    measures_population: ClassVar[bool] = False
    """Whether candidates compete while they are measured, so that what is measured of one depends on the others."""

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of what is measured of every candidate, without which it cannot be ranked; more may be measured."""
        return ()

    search_settings: ClassVar[frozenset[str]] = frozenset()
    """Settings of how candidates are found and judged: what is measured of one does not depend on them."""

    @property
    def needs_images(self) -> bool:
        """Whether what it measures depends on the images."""
        return True

    @property
    def parts(self) -> tuple[Self, ...]:
        """Algorithms whose measurements of a candidate, all together, are those of this one.

        Each is measured once, for all rankings that need it.
        """
        return (self,)

    def measuring_settings(self) -> SettingValues:
        """Return those settings on which what it measures of a candidate depends."""
        assert isinstance(self, BaseModel)
        return self.model_dump(mode="json", exclude=set(self.search_settings))
