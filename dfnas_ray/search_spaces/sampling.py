"""Random architectures within limits on their MACs."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from dfnas_ray.errors import GenotypeError
from dfnas_ray.ops.cost import Cost

_MAX_DRAWS = 10_000
_RARE = 2_000
_STEPS_PER_DECISION = 20


class Space(Protocol):
    """What is used of a `SearchSpace`."""

    kind: str

    @property
    def most_macs(self) -> int:
        """The MACs of the largest architecture."""
        ...

    def check_limit(self, max_macs: int | None, min_macs: int | None) -> None:
        """Make sure that some architecture satisfies each limit."""
        ...

    def is_within(self, genotype: tuple[int, ...], max_macs: int | None, min_macs: int | None) -> bool:
        """Return whether an architecture is within the limits."""
        ...

    def cheapest(self) -> tuple[int, ...]:
        """Return an architecture with the fewest MACs."""
        ...

    def cost(self, genotype: tuple[int, ...]) -> Cost:
        """Return the parameters and MACs of an architecture."""
        ...

    def sample(self, rng: np.random.Generator) -> tuple[int, ...]:
        """Draw an architecture uniformly."""
        ...

    def mutate(self, genotype: tuple[int, ...], rng: np.random.Generator, probability: float) -> tuple[int, ...]:
        """Return a genotype with each decision redrawn with ``probability``."""
        ...


class Window:
    """The architectures of a space with ``min_macs`` to ``max_macs``; either limit may be None.

    Where they are common, they are drawn uniformly, by rejection. Where none is among some thousand architectures, they
    are drawn by a random walk that starts at a known one and never leaves the limits. Which of the two depends only on
    the space and the limits.

    Raises:
        GenotypeError: no architecture is within the limits, or almost none is.
    """

    def __init__(self, space: Space, max_macs: int | None, min_macs: int | None):
        space.check_limit(max_macs, min_macs)
        self._space, self._limits = space, (max_macs, min_macs)
        probe = np.random.default_rng(0)
        drawn = (space.sample(probe) for _ in range(_MAX_DRAWS))
        number, start = next(((n, one) for n, one in enumerate(drawn) if self._holds(one)), (_MAX_DRAWS, None))
        self._is_common = number < _RARE
        if start is None and min_macs is not None:
            most, least = max_macs or space.most_macs, space.cost(space.cheapest()).macs
            raise GenotypeError(
                f"Of {_MAX_DRAWS} architectures drawn from {space.kind}, none has between search.min_macs ({min_macs:,}) and "
                f"search.max_macs ({most:,}) MACs; the smallest has {least:,}. Lower the first or raise the second."
            )
        self._start = space.cheapest() if start is None else start

    def draw(self, rng: np.random.Generator) -> tuple[int, ...]:
        """Draw an architecture."""
        for _ in range(_MAX_DRAWS if self._is_common else 0):
            if self._holds(genotype := self._space.sample(rng)):
                return genotype
        return self._walk(rng)

    def _walk(self, rng: np.random.Generator) -> tuple[int, ...]:
        here, decisions = self._start, len(self._start)
        for _ in range(_STEPS_PER_DECISION * decisions):
            if self._holds(there := self._space.mutate(here, rng, 1 / decisions)):
                here = there
        return here

    def _holds(self, genotype: tuple[int, ...]) -> bool:
        return self._space.is_within(genotype, *self._limits)
