"""The contract of a search space."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
from torch import Tensor, nn

from dfnas_ray.errors import GenotypeError
from dfnas_ray.ops.cost import Cost

Genotype = tuple[int, ...]
"""One choice per decision of the space: the index of the operation taken."""

_MAX_DRAWS = 10_000


class Layer(NamedTuple):
    """One layer of a built architecture, as a drawing shows it."""

    name: str
    operation: str
    output_shape: tuple[int, ...]
    cost: Cost


class Supernet(nn.Module, ABC):
    """All architectures of a space in one network with shared weights."""

    @abstractmethod
    def forward(self, x: Tensor, genotype: Genotype) -> Tensor:
        """Map (B, C, H, W) to logits (B, num_classes) along one architecture's path."""


class SearchSpace(ABC):
    """A finite set of architectures for one input shape and number of classes.

    Attributes:
        kind: The name under which experiment files know the space.
        num_choices: How many options each decision has; a genotype has one index per decision.
        image_shape: (C, H, W).
        num_classes: Of the classifier.
    """

    kind: str
    num_choices: tuple[int, ...]
    image_shape: tuple[int, int, int]
    num_classes: int

    @abstractmethod
    def supernet(self) -> Supernet:
        """Return a new supernet."""

    @abstractmethod
    def build(self, genotype: Genotype) -> nn.Module:
        """Return the stand-alone network, which maps (B, C, H, W) to logits (B, num_classes)."""

    @abstractmethod
    def cost(self, genotype: Genotype) -> Cost:
        """Return parameters and MACs, without building the network."""

    @abstractmethod
    def encode(self, genotype: Genotype) -> str:
        """Return the genotype in the space's usual notation."""

    @abstractmethod
    def decode(self, text: str) -> Genotype:
        """Parse the usual notation; the inverse of `encode`.

        Raises:
            GenotypeError: the text is not a genotype of this space.
        """

    @abstractmethod
    def layers(self, genotype: Genotype) -> list[Layer]:
        """Return the network's layers from input to output; their costs add up to `cost`."""

    @abstractmethod
    def cheapest(self) -> Genotype:
        """Return an architecture with the fewest MACs."""

    def sample(self, rng: np.random.Generator) -> Genotype:
        """Draw an architecture uniformly."""
        return tuple(int(rng.integers(n)) for n in self.num_choices)

    def mutate(self, genotype: Genotype, rng: np.random.Generator, probability: float) -> Genotype:
        """Draw each decision anew with ``probability``, as SPOS does; the draw may repeat the old choice."""
        return tuple(
            int(rng.integers(n)) if rng.random() < probability else choice
            for n, choice in zip(self.num_choices, genotype, strict=True)
        )

    def crossover(self, first: Genotype, second: Genotype, rng: np.random.Generator) -> Genotype:
        """Take each decision from one of the parents, with equal probability."""
        return tuple(a if rng.random() < 0.5 else b for a, b in zip(first, second, strict=True))

    def sample_within(self, rng: np.random.Generator, max_macs: int | None) -> Genotype:
        """Draw uniformly among the architectures of at most ``max_macs``, by rejection.

        Raises:
            GenotypeError: not even the cheapest architecture is within the limit, or almost none is.
        """
        self.check_limit(max_macs)
        for _ in range(_MAX_DRAWS):
            genotype = self.sample(rng)
            if max_macs is None or self.cost(genotype).macs <= max_macs:
                return genotype
        raise GenotypeError(
            f"Of {_MAX_DRAWS} architectures drawn from {self.kind}, none has at most {max_macs:,} MACs; the smallest has "
            f"{self.cost(self.cheapest()).macs:,}. Raise search.max_macs."
        )

    def check_limit(self, max_macs: int | None) -> None:
        """Make sure that the limit admits an architecture.

        Raises:
            GenotypeError: it does not; says which limit would.
        """
        smallest = self.cost(self.cheapest()).macs
        if max_macs is not None and max_macs < smallest:
            raise GenotypeError(
                f"search.max_macs ({max_macs:,}) is below the smallest architecture of {self.kind}, "
                f"{self.encode(self.cheapest())} with {smallest:,} MACs. Raise it to at least that."
            )

    def check_genotype(self, genotype: Genotype) -> None:
        """Make sure that every index is one of the options.

        Raises:
            GenotypeError: it is not.
        """
        fits = len(genotype) == len(self.num_choices) and all(
            0 <= choice < n for choice, n in zip(genotype, self.num_choices, strict=True)
        )
        if not fits:
            raise GenotypeError(
                f"{genotype} is not a genotype of {self.kind}, whose decisions have {self.num_choices} options."
            )
