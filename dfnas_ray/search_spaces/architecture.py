"""One architecture together with its search space."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dfnas_ray.ops.cost import Cost
from dfnas_ray.search_spaces.base import Genotype, SearchSpace
from dfnas_ray.seeding import numpy_generator
from dfnas_ray.storage.location import JsonObject

_DRAWS = 1000


@dataclass(frozen=True)
class Architecture:
    """One architecture together with its search space.

    Attributes:
        config: The settings of the space, as JSON.
    """

    config: JsonObject
    space: SearchSpace
    genotype: Genotype

    @property
    def text(self) -> str:
        """The genotype in the space's usual notation."""
        return self.space.encode(self.genotype)

    @property
    def cost(self) -> Cost:
        """Parameters and MACs."""
        return self.space.cost(self.genotype)

    def random_alike(self, seed: int, min_macs: int | None = None) -> Architecture:
        """Return another, random architecture with MACs within 10 % of this one's, or else the nearest of many draws.

        Args:
            seed: The seed of the draws.
            min_macs: Fewest MACs, ignored if no draw has that many.
        """
        rng, space, budget = numpy_generator(seed, "baseline", self.text), self.space, self.cost.macs
        draws = [space.sample(rng) for _ in range(_DRAWS)]
        others = [draw for draw in draws if draw != self.genotype]
        others = [draw for draw in others if space.is_within(draw, None, min_macs)] or others
        alike = [draw for draw in others if abs(space.cost(draw).macs - budget) <= 0.1 * budget]
        chosen = alike[0] if alike else min(others, key=lambda draw: abs(space.cost(draw).macs - budget))
        return replace(self, genotype=chosen)
