r"""Statistics of how well scores agree with true accuracies.

Kendall's :math:`\tau_b` (Kendall 1945, Biometrika 33, 239-251) and Spearman's :math:`\rho` compare the whole order. The
regret of the top k measures what a search would return: the best accuracy of all minus the best among the k
architectures with the highest scores. Intervals are percentile bootstraps over architectures (Efron & Tibshirani 1993,
Ch. 13) of the mean over seeds. They do not include the variation between seeds, which is given separately. The interval
of a regret is rough: a regret is a difference of maxima, for which the bootstrap works badly, and an architecture drawn
twice takes two of the k places.

Shapes: S seeds, N architectures, R resamples. A NaN score is the lowest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import scipy  # its modules are imported when they are first used

from dfnas_ray.seeding import numpy_generator

Array = np.ndarray[Any, Any]

LEVEL = 0.95
TOP = (1, 5)
_MAX_RESAMPLES = 1_000
_MIN_RESAMPLES = 200
_MOST_IN_PAIRS = 1_000  # architectures whose pairs are compared at once
_DRAWS = 2_000_000  # architectures in all resamples together; above 2,000 architectures there are fewer resamples


@dataclass(frozen=True)
class Estimate:
    """One figure of a ranking.

    Attributes:
        mean: Mean over seeds.
        low: Lower end of its 95 % interval.
        high: Upper end of its 95 % interval.
        per_seed: One value per seed.
    """

    mean: float
    low: float
    high: float
    per_seed: tuple[float, ...]

    @property
    def deviation(self) -> float:
        """Standard deviation over seeds; 0 for a single one."""
        return float(np.std(self.per_seed, ddof=1)) if len(self.per_seed) > 1 else 0.0


def kendall_tau(scores: Array, accuracies: Array) -> Array:
    """Return tau-b of each row of two arrays (R, N), in [-1, 1]; 0 where one is constant and so has no order."""
    pairs = zip(_ordered(scores), accuracies, strict=True)
    return np.nan_to_num([scipy.stats.kendalltau(a, b, method="asymptotic").statistic for a, b in pairs])


def resampled_tau(scores: Array, accuracies: Array, resamples: Array) -> Array:
    """Return `kendall_tau` of resamples (R, N) of one row of scores (N,) and their accuracies (N,)."""
    if len(scores) > _MOST_IN_PAIRS:
        return kendall_tau(scores[resamples], accuracies[resamples])
    counts = np.zeros(resamples.shape)
    np.add.at(counts, (np.arange(len(resamples))[:, None], resamples), 1)
    places = (np.unique(values, return_inverse=True)[1] for values in (_ordered(scores), accuracies))
    a, b = (np.sign(each[:, None] - each).astype(np.float64) for each in places)
    # Each pair of architectures counts as often as it is drawn; pairs of the same one are ties.
    agreeing, a_untied, b_untied = (((counts @ pairs) * counts).sum(axis=1) / 2 for pairs in (a * b, abs(a), abs(b)))
    scale = np.sqrt(a_untied) * np.sqrt(b_untied)
    return np.divide(agreeing, scale, out=np.zeros(len(counts)), where=scale > 0)


def spearman_rho(scores: Array, accuracies: Array) -> Array:
    """Return Spearman's rho of each row of two arrays (R, N); ties share their mean rank, and constants give 0."""
    a, b = (scipy.stats.rankdata(values, axis=1) for values in (_ordered(scores), accuracies))
    a, b = (ranks - ranks.mean(axis=1, keepdims=True) for ranks in (a, b))
    scale = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return np.divide((a * b).sum(axis=1), scale, out=np.zeros(len(a)), where=scale > 0)


def regret(scores: Array, accuracies: Array, top: int) -> Array:
    """Return, for each row of two arrays (R, N), the best accuracy minus the best among the ``top`` highest scores.

    The unit is that of the accuracies, and the regret is at least 0. Among equal scores, the least accurate
    architecture comes first, so that ties bring no advantage.
    """
    order = np.lexsort((accuracies, -_ordered(scores)), axis=1)
    chosen = np.take_along_axis(accuracies, order[:, :top], axis=1)
    return np.asarray(accuracies.max(axis=1) - chosen.max(axis=1))


def draw_resamples(num_architectures: int, seed: int) -> Array:
    """Return bootstrap samples as indices (R, N).

    R is 1,000 for up to 2,000 architectures, and falls to 200 for large tables, whose intervals are narrow.
    """
    num_resamples = max(_MIN_RESAMPLES, min(_MAX_RESAMPLES, _DRAWS // num_architectures))
    rng = numpy_generator(seed, "benchmark-bootstrap")
    return rng.integers(num_architectures, size=(num_resamples, num_architectures))


@dataclass(frozen=True)
class Agreement:
    """A ranking's figures.

    Attributes:
        tau: Kendall's tau-b.
        rho: Spearman's rho.
        regret: The regret of the top k, by k, in the table's units.
        tau_gain: Tau minus the baseline's on the same architectures and resamples; None for the baseline itself.
        resampled_tau: Tau of each resample (R,), mean over seeds.
    """

    tau: Estimate
    rho: Estimate
    regret: dict[int, Estimate]
    tau_gain: Estimate | None
    resampled_tau: Array


def measure_agreement(
    scores: Array, accuracies: Array, resamples: Array, baseline: Agreement | None = None
) -> Agreement:
    """Compare the scores of every seed with the true accuracies.

    Args:
        scores: (S, N), higher is better.
        accuracies: (N,).
        resamples: (R, N), the same for all rankings that are compared.
        baseline: The agreement of the baseline ranking on the same architectures; its mean tau over seeds is
            subtracted.
    """

    of_seeds = np.broadcast_to(accuracies, scores.shape)

    def estimate(statistic: Callable[[Array, Array], Array]) -> Estimate:
        resampled = np.mean([statistic(row[resamples], accuracies[resamples]) for row in scores], axis=0)
        return _estimate(statistic(scores, of_seeds), resampled)

    taus = np.mean([resampled_tau(row, accuracies, resamples) for row in scores], axis=0)
    tau, gain = _estimate(kendall_tau(scores, of_seeds), taus), None
    if baseline is not None:
        gain = _estimate(np.array(tau.per_seed) - baseline.tau.mean, taus - baseline.resampled_tau)
    regrets = {top: estimate(partial(regret, top=top)) for top in TOP}
    return Agreement(tau, estimate(spearman_rho), regrets, gain, taus)


def _estimate(per_seed: Array, resampled: Array) -> Estimate:
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(np.mean(per_seed)), float(low), float(high), tuple(per_seed.tolist()))


def _ordered(scores: Array) -> Array:
    """Return the scores with NaN replaced by minus infinity, so that they can be compared."""
    return np.where(np.isnan(scores), -np.inf, scores)
