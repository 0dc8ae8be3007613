"""Paths of a supernet drawn from bins of MACs, similar to the published SPOS search, which trains in a narrow range.

Without bins, most paths have medium MACs, and the smallest and largest networks are hardly trained.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from dfnas_ray.search_spaces.base import Genotype, SearchSpace

_MAX_DRAWS = 200


class MacsBins:
    """Equally wide bins of MACs, each drawn equally often.

    Args:
        space: The search space.
        number: Number of bins.
        max_macs: The end of the last bin; None: the MACs of the space's largest architecture.
        min_macs: The beginning of the first bin; None: the MACs of the space's smallest architecture.
    """

    def __init__(self, space: SearchSpace, number: int, max_macs: int | None, min_macs: int | None):
        self.space, self.limits = space, (max_macs, min_macs)
        low = max(space.cost(space.cheapest()).macs, min_macs or 0)
        high = min(space.most_macs, math.inf if max_macs is None else max_macs)
        self.bins = list(pairwise(np.linspace(low, high, number + 1)))

    def draw(self, rng: np.random.Generator) -> Genotype:
        """Draw a bin, then an architecture in it; if none of 200 draws falls into the bin, return the nearest one."""
        low, high = self.bins[int(rng.integers(len(self.bins)))]
        nearest, distance = None, math.inf
        for _ in range(_MAX_DRAWS):
            genotype = self.space.sample_within(rng, *self.limits)
            macs = self.space.cost(genotype).macs
            away = max(low - macs, macs - high, 0.0)
            if away < distance:
                nearest, distance = genotype, away
            if away == 0:
                break
        assert nearest is not None, "the first one is nearer than nothing"
        return nearest
