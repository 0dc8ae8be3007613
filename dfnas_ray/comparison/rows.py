"""The rows of a comparison's table, from the results of searches and rankings: values, differences and verdicts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from dfnas_ray.comparison.config import ComparisonConfig
from dfnas_ray.comparison.result import ComparedRow, Figure, FoundArchitecture, verdict
from dfnas_ray.comparison.statistics import Array, Spread

_OF_SEARCHES: tuple[Figure, ...] = ("accuracy", "gain", "regret")

Contender: TypeAlias = tuple[str, str]
"""An algorithm's label and a variant's name."""


@dataclass(frozen=True)
class RankedVariants:
    """How well rankings agree with a table.

    Attributes:
        architectures: Number of architectures that were ranked.
        tau: Kendall's tau, by algorithm and variant.
        resampled: Resampled values (R,) of each tau, on the same resamples of architectures.
    """

    architectures: int
    tau: dict[Contender, Spread]
    resampled: dict[Contender, Array]


def rows_of(
    config: ComparisonConfig,
    data_free: Mapping[str, bool],
    found: Sequence[FoundArchitecture],
    ranked: RankedVariants | None,
) -> Iterator[ComparedRow]:
    """Yield all rows, ordered by figure and algorithm, and then by variant.

    Args:
        config: The settings, which name the reference and the declared margins.
        data_free: For each variant, whether its search sees no real image.
        found: The architectures that all searches found.
        ranked: All rankings, if there are any.
    """
    if ranked is not None:
        for algorithm in dict.fromkeys(label for label, _ in ranked.tau):
            for variant in config.variants:
                if (algorithm, variant) in ranked.tau:
                    yield _tau_row(config, data_free[variant], ranked, (algorithm, variant))
    for figure in _OF_SEARCHES:
        for algorithm in dict.fromkeys(one.algorithm for one in found):
            values = {
                variant: {
                    one.seed: value
                    for one in found
                    if (one.algorithm, one.variant) == (algorithm, variant)
                    and (value := getattr(one, figure)) is not None
                }
                for variant in config.variants
            }
            for variant in config.variants:
                if values[variant]:
                    yield _row(config, data_free[variant], figure, algorithm, variant, values)


def _row(
    config: ComparisonConfig,
    data_free: bool,
    figure: Figure,
    algorithm: str,
    variant: str,
    values: Mapping[str, Mapping[int, float]],
) -> ComparedRow:
    own, reference = values[variant], values[config.compared_with]
    common = [seed for seed in config.seeds if seed in own and seed in reference]
    value, difference, said = Spread.over_seeds([own[seed] for seed in config.seeds if seed in own]), None, []
    if figure == "gain" and value.low is not None:
        said.append("better than chance" if value.low > 0 else "not surely better than chance")
    if variant != config.compared_with and common:
        difference = Spread.over_seeds([own[seed] - reference[seed] for seed in common])
        if figure != "gain":  # a gain is compared with chance, not with the reference
            said.append(verdict(difference, config.margins.accuracy, figure == "regret"))
    return ComparedRow(
        figure=figure, algorithm=algorithm, variant=variant, data_free=data_free, value=value, difference=difference,
        verdict="; ".join(said),
    )  # fmt: skip


def _tau_row(config: ComparisonConfig, data_free: bool, ranked: RankedVariants, key: Contender) -> ComparedRow:
    algorithm, variant = key
    other, difference, said = (algorithm, config.compared_with), None, ""
    if variant != config.compared_with and other in ranked.tau:
        pairs = zip(ranked.tau[key].per_seed, ranked.tau[other].per_seed, strict=True)
        resampled = ranked.resampled[key] - ranked.resampled[other]
        difference = Spread.resampled([own - its for own, its in pairs], resampled)
        said = verdict(difference, config.margins.tau)
    return ComparedRow(
        figure="tau", algorithm=algorithm, variant=variant, data_free=data_free, value=ranked.tau[key],
        difference=difference, verdict=said,
    )  # fmt: skip
