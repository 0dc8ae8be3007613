"""What a benchmark finds, as it is recorded."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from dfnas_ray.ranking.config import Source
from dfnas_ray.ranking.statistics import Estimate
from dfnas_ray.storage.location import Location


class Interval(BaseModel):
    """One figure of a ranking, with its 95 % interval and what each seed gave."""

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
    """One ranking beside the table.

    Attributes:
        title: Algorithm and images.
        ranking: The algorithm's label, or the baseline's name.
        images: None if they do not matter.
        best: Whether no data-free ranking agrees better.
        tau_gain: Tau minus that of the first baseline.
        seconds_per_architecture: None for a baseline.
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


class TableFacts(BaseModel):
    """What is said of the table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    used: tuple[int, int]
    accuracy_column: str
    best_in_sample: float


class BenchmarkFacts(BaseModel):
    """What was compared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    space: str
    architectures: int
    table: TableFacts
    seeds: tuple[int, ...]
    level: float
    resamples: int


class BenchmarkResult(BenchmarkFacts):
    """All rankings: ``benchmark.json``."""

    rankings: tuple[RankingRow, ...]

    @classmethod
    def read(cls, folder: Location) -> BenchmarkResult:
        """Read it from a finished benchmark's folder."""
        return (folder / "benchmark.json").read_model(cls)

    @property
    def best(self) -> RankingRow:
        """The best data-free ranking."""
        return next(row for row in self.rankings if row.best)
