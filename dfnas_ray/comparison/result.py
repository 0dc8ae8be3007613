"""The record of what a comparison finds: ``comparison.json``."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

from dfnas_ray.comparison.statistics import Spread
from dfnas_ray.storage.location import Count, Location

_FILE = "comparison.json"

Figure = Literal["accuracy", "gain", "regret", "tau"]
"""accuracy: that of the architecture found, in points. gain: this minus the mean of random architectures of its MACs.
regret: accuracy of the best architecture of the table within the limit, minus this.
tau: Kendall's tau of an algorithm's ranking."""

TITLES: dict[Figure, str] = {
    "accuracy": "accuracy of what is found",
    "gain": "gain over random networks of the same MACs",
    "regret": "regret",
    "tau": "tau of the ranking",
}


class FoundArchitecture(BaseModel):
    """The architecture that one search found, and its accuracy.

    Attributes:
        accuracy: Accuracy in points: the table's, or measured after retraining; None if the table lacks the
            architecture.
        random_mean: Mean accuracy of other architectures within 10 % of its MACs, measured in the same way.
        random: Number of these random architectures.
        best: Best accuracy in the table within the limit; None without a table.
        only_right: Number of images on which only this network is right, and on which only the reference's network of
            the same seed is right.
        mcnemar: The p-value of McNemar's test on these two numbers.
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
        """Its accuracy minus the mean accuracy of the random architectures."""
        return None if self.accuracy is None or self.random_mean is None else self.accuracy - self.random_mean

    @property
    def regret(self) -> float | None:
        """The best accuracy of the table minus its own."""
        return None if self.accuracy is None or self.best is None else self.best - self.accuracy


class ComparedRow(BaseModel):
    """One figure of one algorithm in one variant.

    Attributes:
        variant: Name of the variant.
        difference: Difference from the reference, seed by seed; None for the reference itself.
        verdict: What the interval of the difference says.
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
    """All figures of a comparison.

    Attributes:
        judged_by: The source of the accuracies.
        architectures: Number of architectures that were ranked; 0 without rankings.
        rows: The figures, ordered by figure, algorithm and variant.
        found: The result of every search.
        missing: Architectures that were found, but are not in the table.
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
        """Return the result in the folder of a finished comparison.

        Raises:
            StorageError: the file is missing, of another version, or was altered.
        """
        return (folder / _FILE).read_model(cls)

    def write(self, folder: Location) -> None:
        """Write the result into the folder of a comparison."""
        (folder / _FILE).write_model(self)


def verdict(difference: Spread, margin: float | None, is_worse_if_larger: bool = False) -> str:
    """Return what a difference from the reference means.

    Args:
        difference: The variant's figure minus the reference's.
        margin: How much worse a variant may be, as declared; None if no margin was declared.
        is_worse_if_larger: Whether a larger figure is worse, as for regret.
    """
    if difference.low is None or difference.high is None:
        return "one seed: no interval"
    low, high = (-difference.high, -difference.low) if is_worse_if_larger else (difference.low, difference.high)
    if low > 0:
        return "better"
    if margin is not None and low >= -margin:
        return "not worse by the margin"
    return "worse" if high < 0 else "undecided"
