"""Means over seeds, paired differences, and tests of two networks on the same images.

Intervals over seeds are Student's t intervals. The seeds of two variants are pairs: with the same seed, they have the
same initial weights and the same random draws. Intervals of a ranking's tau are percentile bootstraps over
architectures, as in ranking/statistics.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import scipy  # its modules are imported when they are first used
from pydantic import BaseModel, ConfigDict

LEVEL = 0.95
Array = np.ndarray[Any, Any]


class Spread(BaseModel):
    """A mean with its interval.

    Attributes:
        low: Lower end of the 95 % interval; None with a single seed.
        high: Upper end.
        deviation: Standard deviation over seeds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    mean: float
    low: float | None
    high: float | None
    deviation: float
    per_seed: tuple[float, ...]

    @classmethod
    def over_seeds(cls, values: Sequence[float]) -> Self:
        """Return the mean over seeds and its interval, from one value for each seed."""
        array = np.asarray(values, np.float64)
        low = high = None
        deviation = float(array.std(ddof=1)) if len(array) > 1 else 0.0
        if len(array) > 1:
            if deviation:
                interval = scipy.stats.ttest_1samp(array, 0.0).confidence_interval(LEVEL)
                low, high = float(interval.low), float(interval.high)
            else:  # all values are equal
                low = high = float(array.mean())
        return cls(mean=float(array.mean()), low=low, high=high, deviation=deviation, per_seed=tuple(array.tolist()))

    @classmethod
    def resampled(cls, per_seed: Sequence[float], resampled: Array) -> Self:
        """Return the mean over seeds, with the interval from its resamples (R,)."""
        low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        array = np.asarray(per_seed, np.float64)
        deviation = float(array.std(ddof=1)) if len(array) > 1 else 0.0
        values = tuple(array.tolist())
        return cls(mean=float(array.mean()), low=float(low), high=float(high), deviation=deviation, per_seed=values)

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval excludes 0, so that the sign of a difference is known."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def mcnemar(only_one: int, only_other: int) -> float:
    """Return the exact two-sided p-value of the hypothesis that two networks are right equally often.

    Source: McNemar 1947, Psychometrika 12, 153-157; exact: binomial with probability 1/2.

    Args:
        only_one: Number of images on which only the first network is right.
        only_other: Number of images on which only the second network is right.
    """
    discordant = only_one + only_other
    # as scipy.stats.binomtest for this probability, without the second that importing scipy.stats takes
    return min(1.0, 2 * float(scipy.special.bdtr(min(only_one, only_other), discordant, 0.5)))
