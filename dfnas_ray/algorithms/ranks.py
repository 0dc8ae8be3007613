"""One score out of several figures that have no common scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dfnas_ray.algorithms.base import Measurement


def add_up_ranks(measurements: Sequence[Measurement], figures: Sequence[str]) -> list[float]:
    r"""Return :math:`\sum_k \log(r_k / m)` for each of m candidates, :math:`r_k` its rank by figure k (1 is the worst).

    The logarithm punishes a low rank by any figure more than a high one by another makes good.
    Source: Lee & Ham 2024, arXiv:2403.19232. Candidates that are equal share their mean rank; NaN is worst.
    """
    from scipy.stats import rankdata  # every search process imports this module

    table = np.array([[measurement[name] for name in figures] for measurement in measurements], dtype=float)
    table = np.nan_to_num(table, nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    ranks = rankdata(table, axis=0)
    scores: list[float] = np.log(ranks / len(table)).sum(axis=1).tolist()
    return scores
