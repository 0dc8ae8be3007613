"""The recorded result of a benchmark."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, model_validator

from dfnas_ray.ranking.config import Source
from dfnas_ray.ranking.statistics import Estimate
from dfnas_ray.storage.location import Count, Location

_FILE = "benchmark.json"

BASELINES = ("parameters", "macs")
"""Rankings that need no measurement."""


class Interval(BaseModel):
    """One figure of a ranking, with its 95 % interval and its value for each seed."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    mean: float
    low: float
    high: float
    per_seed: tuple[float, ...]
    deviation: float

    @classmethod
    def of(cls, estimate: Estimate) -> Interval:
        """Return an estimate as it is recorded."""
        return cls(**vars(estimate), deviation=estimate.deviation)


class RankingRow(BaseModel):
    """One ranking compared with the table.

    Attributes:
        title: Algorithm and images, as text.
        ranking: The algorithm's label, or the baseline's name.
        images: The source of the images; None if they do not matter.
        best: Whether this is the data-free ranking that agrees best.
        tau_gain: Tau minus that of the first baseline.
        seconds_per_architecture: Seconds of work per architecture; None for a baseline.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    title: str
    ranking: str
    images: Source | None
    data_free: bool
    best: bool
    tau: Interval
    rho: Interval
    regret_1: Interval
    regret_5: Interval
    tau_gain: Interval | None
    seconds_per_architecture: float | None

    @property
    def regrets(self) -> dict[int, Interval]:
        """The regret of the best k, by k."""
        return {1: self.regret_1, 5: self.regret_5}


class TableFacts(BaseModel):
    """Facts about the table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: Count
    used: tuple[Count, Count]
    accuracy_column: str
    best_in_sample: float


class BenchmarkFacts(BaseModel):
    """Facts about the comparison."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    space: str
    architectures: Count
    table: TableFacts
    seeds: tuple[int, ...]
    level: float
    resamples: Count


class BenchmarkResult(BenchmarkFacts):
    """All rankings: ``benchmark.json``."""

    rankings: tuple[RankingRow, ...]

    @classmethod
    def read(cls, folder: Location) -> BenchmarkResult:
        """Return the result from a finished benchmark's folder.

        Raises:
            StorageError: the file is missing, was written by another version, or was altered.
        """
        return (folder / _FILE).read_model(cls)

    def write(self, folder: Location) -> None:
        """Write the result into a benchmark's folder."""
        (folder / _FILE).write_model(self)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if sum(row.best for row in self.rankings) != 1 or not any(row.ranking == BASELINES[0] for row in self.rankings):
            raise ValueError("one ranking must be the best, and one the first baseline's")
        return self

    @property
    def baseline(self) -> RankingRow:
        """The first baseline, with which the others are compared."""
        return next(row for row in self.rankings if row.ranking == BASELINES[0])

    @property
    def by_merit(self) -> list[RankingRow]:
        """The rankings, sorted by agreement with the table, best first."""
        return sorted(self.rankings, key=lambda row: -row.tau.mean)

    @property
    def best(self) -> RankingRow:
        """The best data-free ranking."""
        return next(row for row in self.rankings if row.best)
