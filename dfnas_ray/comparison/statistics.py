"""Means over seeds, paired differences, and tests of two networks on the same images.

Intervals over seeds are Student's (the seeds of two variants are pairs: the same weights at first, the same order of
draws). Those of a ranking's tau are percentile bootstraps over architectures, as in ranking/statistics.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict
from scipy import stats

LEVEL = 0.95
Array = np.ndarray[Any, Any]


class Spread(BaseModel):
    """A mean with its interval.

    Attributes:
        low: Lower end of the 95 % interval; None with a single seed.
        high: Upper end.
        deviation: Over seeds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    mean: float
    low: float | None
    high: float | None
    deviation: float
    per_seed: tuple[float, ...]

    @classmethod
    def over_seeds(cls, values: Sequence[float]) -> Self:
        """Return mean and interval of one value for each seed."""
        array = np.asarray(values, np.float64)
        low = high = None
        deviation = float(array.std(ddof=1)) if len(array) > 1 else 0.0
        if len(array) > 1:
            if deviation:
                interval = stats.ttest_1samp(array, 0.0).confidence_interval(LEVEL)
                low, high = float(interval.low), float(interval.high)
            else:  # all alike
                low = high = float(array.mean())
        return cls(mean=float(array.mean()), low=low, high=high, deviation=deviation, per_seed=tuple(array.tolist()))

    @classmethod
    def resampled(cls, per_seed: Sequence[float], resampled: Array) -> Self:
        """Return the mean over seeds with the interval that resamples (R,) of it give."""
        low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        array = np.asarray(per_seed, np.float64)
        deviation = float(array.std(ddof=1)) if len(array) > 1 else 0.0
        values = tuple(array.tolist())
        return cls(mean=float(array.mean()), low=float(low), high=float(high), deviation=deviation, per_seed=values)

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval says which sign a difference has."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def mcnemar(only_one: int, only_other: int) -> float:
    """Return the exact two-sided p-value that two networks are equally often right, from the images on which one is.

    Source: McNemar 1947, Psychometrika 12, 153-157; exact: binomial with probability 1/2.

    Args:
        only_one: Images that only the first network is right on.
        only_other: Those that only the second is right on.
    """
    discordant = only_one + only_other
    return float(stats.binomtest(only_one, discordant, 0.5).pvalue) if discordant else 1.0
