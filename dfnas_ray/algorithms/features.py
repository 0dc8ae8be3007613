"""What algorithms declare for features that not all of them support. Each declaration has a default."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import BaseModel

from dfnas_ray.config.registry import SettingValues
from dfnas_ray.search_spaces.base import SearchSpace


class StreamingFeatures:
    """Used by a search that starts before all images are ready."""

    trains_by_epochs: ClassVar[bool] = False
    """Whether the algorithm trains on the images epoch by epoch before candidates are compared."""


class ExecutionFeatures:
    """Used before a search starts in a single process."""

    @property
    def needs_many_workers(self) -> str:
        """Why the algorithm cannot search in a single process, and what to do; empty if it can."""
        return ""


class PlanningFeatures:
    """Used to estimate how long a search takes, from a small measurement of a few steps and candidates."""

    @property
    def num_passes(self) -> float | None:
        """Number of passes over the training images before candidates are measured; None: one for each epoch."""
        return None

    @property
    def passes_per_epoch(self) -> float:
        """Number of passes in one call of `SearchAlgorithm.train_epoch`."""
        return 1.0

    @property
    def num_candidates(self) -> int | None:
        """Largest number of candidates that one search measures; None: as many in each round as in the first."""
        return None

    def images_per_candidate(self, train: int, validation: int) -> float:
        """Return a number of images to which the time of measuring one candidate is proportional.

        Args:
            train: Number of training images.
            validation: Number of validation images.
        """
        return 1.0


class FileFeatures:
    """Used for algorithms that read files, because the result of a search depends on them."""

    @property
    def files(self) -> tuple[str, ...]:
        """The files that the algorithm reads; the result of a search depends on their content."""
        return ()

    def check_files(self, space: SearchSpace) -> None:
        """Make sure that the files can be read and belong to this space.

        Raises:
            ConfigError: a file cannot be read, or belongs to another space.
        """


class RankingFeatures:
    """Used by the benchmark, in which algorithms rank given architectures."""

    cannot_rank: ClassVar[str] = ""
    """Why the algorithm cannot rank given architectures; empty if it can."""

    measures_population: ClassVar[bool] = False
    """Whether candidates compete while they are measured, so that the measurement of one depends on the others."""

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of the figures that every candidate needs for the ranking; the algorithm may measure more."""
        return ()

    search_settings: ClassVar[frozenset[str]] = frozenset()
    """Settings of how candidates are found and judged. The measurement of a candidate does not depend on them."""

    @property
    def needs_images(self) -> bool:
        """Whether the measurements depend on the images."""
        return True

    @property
    def parts(self) -> tuple[Self, ...]:
        """Algorithms whose measurements of a candidate together make up the measurement of this one.

        Each part is measured once, for all rankings that need it.
        """
        return (self,)

    def measuring_settings(self) -> SettingValues:
        """Return the settings on which the measurement of a candidate depends."""
        assert isinstance(self, BaseModel)
        return self.model_dump(mode="json", exclude=set(self.search_settings))
