"""The proxies by name, and how several are added up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy.stats import rankdata

from dfnas_ray.algorithms.base import Measurement
from dfnas_ray.algorithms.zero_cost.az_nas import EXPRESSIVITY, PROGRESSIVITY, TRAINABILITY, az_nas, entropies
from dfnas_ray.algorithms.zero_cost.candidate import Candidate
from dfnas_ray.algorithms.zero_cost.naswot import naswot
from dfnas_ray.algorithms.zero_cost.synflow import synflow
from dfnas_ray.algorithms.zero_cost.zico import zico

ProxyName = Literal["parameters", "macs", "synflow", "naswot", "zico", "az_nas", "expressivity"]


class Proxy(NamedTuple):
    """One proxy.

    Attributes:
        figures: Names of what it measures; for each, higher is better.
        measure: Returns the figures.
        needs_images: Whether they depend on the images.
    """

    figures: tuple[str, ...]
    measure: Callable[[Candidate], Measurement]
    needs_images: bool


PROXIES: dict[ProxyName, Proxy] = {
    "parameters": Proxy(("parameters",), lambda c: {"parameters": float(c.cost.params)}, False),
    "macs": Proxy(("macs",), lambda c: {"macs": float(c.cost.macs)}, False),
    "synflow": Proxy(("synflow",), lambda c: {"synflow": synflow(c)}, False),
    "naswot": Proxy(("naswot",), lambda c: {"naswot": naswot(c)}, True),
    "zico": Proxy(("zico",), lambda c: {"zico": zico(c)}, True),
    "expressivity": Proxy((EXPRESSIVITY,), lambda c: {EXPRESSIVITY: entropies(c)[EXPRESSIVITY]}, True),
    "az_nas": Proxy(
        (EXPRESSIVITY, PROGRESSIVITY, TRAINABILITY, "macs"), lambda c: {**az_nas(c), "macs": float(c.cost.macs)}, True
    ),
}


def add_up_ranks(measurements: Sequence[Measurement], figures: Sequence[str]) -> list[float]:
    r"""Return :math:`\sum_k \log(r_k / m)` for each of m candidates, :math:`r_k` its rank by figure k (1 is the worst).

    The logarithm punishes a low rank by any figure more than a high one by another makes good.
    Source: Lee & Ham 2024, arXiv:2403.19232, Eq. 10. Candidates that are equal share their mean rank; NaN is worst.
    """
    table = np.array([[measurement[name] for name in figures] for measurement in measurements], dtype=float)
    table = np.nan_to_num(table, nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    ranks = rankdata(table, axis=0)
    scores: list[float] = np.log(ranks / len(table)).sum(axis=1).tolist()
    return scores
