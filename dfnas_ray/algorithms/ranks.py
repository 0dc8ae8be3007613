"""One score from several figures that have no common scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy  # its modules are imported when they are first used

from dfnas_ray.algorithms.base import Measurement


def add_up_ranks(measurements: Sequence[Measurement], figures: Sequence[str]) -> list[float]:
    r"""Return :math:`\sum_k \log(r_k / m)` for each of m candidates; :math:`r_k` is its rank by figure k, 1 is worst.

    Because of the logarithm, a high rank by one figure cannot make up for a low rank by another.
    Source: Lee & Ham 2024, arXiv:2403.19232. Equal candidates share their mean rank; NaN is worst.
    """
    table = np.array([[measurement[name] for name in figures] for measurement in measurements], dtype=float)
    table = np.nan_to_num(table, nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    ranks = scipy.stats.rankdata(table, axis=0)
    scores: list[float] = np.log(ranks / len(table)).sum(axis=1).tolist()
    return scores
