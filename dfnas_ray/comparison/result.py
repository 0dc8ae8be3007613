"""What a comparison finds, as it is recorded: ``comparison.json``."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

from dfnas_ray.comparison.statistics import Spread
from dfnas_ray.storage.location import Count, Location

_FILE = "comparison.json"

Figure = Literal["accuracy", "gain", "regret", "tau"]
"""accuracy: of what a search found, in points. gain: the same minus random architectures of its MACs. regret: the best
architecture of the table that keeps to the limit, minus it. tau: Kendall's, of an algorithm's ranking."""

TITLES: dict[Figure, str] = {
    "accuracy": "accuracy of what is found",
    "gain": "gain over random networks of the same MACs",
    "regret": "regret",
    "tau": "tau of the ranking",
}


class FoundArchitecture(BaseModel):
    """What one search found, and what it is worth.

    Attributes:
        accuracy: In points: the table's, or measured after retraining; None if the table does not have it.
        random_mean: Mean accuracy of other architectures within 10 % of its MACs, judged alike.
        random: How many of them.
        best: Of the table, within the limit; None without a table.
        only_right: Images that only this network is right on, and that only the reference's of the same seed is.
        mcnemar: The p-value of that.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    variant: str
    seed: int
    algorithm: str
    genotype: str
    macs: Count
    accuracy: float | None
    random_mean: float | None
    random: Count
    best: float | None = None
    only_right: tuple[Count, Count] | None = None
    mcnemar: float | None = None

    @property
    def gain(self) -> float | None:
        """Its accuracy minus the mean of the random ones'."""
        return None if self.accuracy is None or self.random_mean is None else self.accuracy - self.random_mean

    @property
    def regret(self) -> float | None:
        """The best accuracy of the table minus its own."""
        return None if self.accuracy is None or self.best is None else self.best - self.accuracy


class ComparedRow(BaseModel):
    """One figure of one algorithm in one variant.

    Attributes:
        variant: Its name.
        difference: From the reference's, seed by seed; None for the reference itself.
        verdict: What the difference's interval says.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    figure: Figure
    algorithm: str
    variant: str
    data_free: bool
    value: Spread
    difference: Spread | None = None
    verdict: str = ""


class ComparisonResult(BaseModel):
    """All figures, the reference's beside each other one's.

    Attributes:
        judged_by: Where accuracies are from.
        architectures: How many were ranked; 0 if none were.
        rows: By figure, algorithm and variant.
        found: Every search.
        missing: Architectures that were found and that the table does not have.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    reference: str
    variants: dict[str, dict[str, object]]
    seeds: tuple[int, ...]
    judged_by: str
    architectures: Count = 0
    rows: tuple[ComparedRow, ...]
    found: tuple[FoundArchitecture, ...]
    missing: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        named = {self.reference, *(row.variant for row in self.rows), *(one.variant for one in self.found)}
        if unknown := sorted(named - self.variants.keys()):
            raise ValueError(f"variants says nothing of {', '.join(unknown)}")
        return self

    @classmethod
    def read(cls, folder: Location) -> ComparisonResult:
        """Read it from a finished comparison's folder.

        Raises:
            StorageError: the file is missing, of another version, or was altered.
        """
        return (folder / _FILE).read_model(cls)

    def write(self, folder: Location) -> None:
        """Write it into a comparison's folder."""
        (folder / _FILE).write_model(self)


def verdict(difference: Spread, margin: float | None, is_worse_if_larger: bool = False) -> str:
    """Say what a difference from the reference's says.

    Args:
        difference: The variant's figure minus the reference's.
        margin: By how much a variant may be worse, as declared; None if nothing was declared.
        is_worse_if_larger: As for a regret.
    """
    if difference.low is None or difference.high is None:
        return "one seed: no interval"
    low, high = (-difference.high, -difference.low) if is_worse_if_larger else (difference.low, difference.high)
    if low > 0:
        return "better"
    if margin is not None and low >= -margin:
        return "not worse by the margin"
    return "worse" if high < 0 else "undecided"
