"""The contract of a search space."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from torch import Tensor, nn

from dfnas_ray.config.member import MemberConfig
from dfnas_ray.errors import ConfigError, GenotypeError
from dfnas_ray.ops.cost import Cost, make_without_memory, trace_cost
from dfnas_ray.ops.mixed import SKIP_NAMES, Choice
from dfnas_ray.search_spaces.cost_table import CostTable
from dfnas_ray.search_spaces.sampling import Window

Genotype = tuple[int, ...]
"""One choice per decision of the space: the index of the option taken."""

_MAX_LISTED = 1_000_000  # spaces of up to this many architectures are listed in memory to draw from
_BISECTIONS = 60


class SpaceConfig(MemberConfig):
    """The settings that all search spaces share.

    Attributes:
        kind: The name of the space in experiment files; each space defines its own as a field.
    """

    if TYPE_CHECKING:
        kind: str

    has_auxiliary_classifier: ClassVar[bool] = False  # see `SearchSpace.build_with_auxiliary`
    has_drop_path: ClassVar[bool] = False  # whether its networks contain `torchvision.ops.StochasticDepth`

    @property
    def native_input(self) -> tuple[tuple[int, int, int], int]:
        """The image shape and the number of classes for which the space was published."""
        is_large = getattr(self, "form", "cifar") == "imagenet"
        return ((3, 224, 224), 1000) if is_large else ((3, 32, 32), 10)

    @abstractmethod
    def space(self, image_shape: tuple[int, int, int], num_classes: int) -> SearchSpace:
        """Return the space for one input shape and number of classes."""


class Layer(NamedTuple):
    """One layer of a built architecture, as a drawing shows it."""

    name: str
    operation: str
    output_shape: tuple[int, ...]
    cost: Cost


class Edge(NamedTuple):
    """One connection within a cell."""

    source: str
    target: str
    operation: str


class Part(NamedTuple):
    """A part of a space's networks whose cost or latency can be measured by itself.

    Attributes:
        layer: The number of its layer.
        option: The (mixed operation, option) that uses it; None if every architecture has it.
        key: Parts with equal keys and equal input shapes are the same.
        make: Returns the module.
        input_shape: (C, H, W).
    """

    layer: int
    option: tuple[int, int] | None
    key: Hashable
    make: Callable[[], nn.Module]
    input_shape: tuple[int, ...]


class Supernet(nn.Module, ABC):
    """All architectures of a space in one network with shared weights."""

    @abstractmethod
    def forward(self, x: Tensor, choices: Sequence[Choice]) -> Tensor:
        """Map (B, C, H, W) to logits (B, num_classes).

        Args:
            x: Images.
            choices: One per mixed operation of the space: an option, a mixture of options, or None where an
                architecture has no connection. `SearchSpace.choices` gives those of one architecture.
        """


class SearchSpace(ABC):
    """A finite set of architectures for one input shape and number of classes.

    Attributes:
        kind: The name of the space in experiment files.
        num_choices: Number of options of each decision; a genotype has one index per decision.
        num_options: Number of options of each mixed operation of the supernet. In most spaces each mixed operation is
            one decision. A DARTS cell has one for every possible edge, while a genotype has two edges per node.
        image_shape: (C, H, W).
        num_classes: Number of classes of the classifier.
    """

    kind: str
    num_choices: tuple[int, ...]
    num_options: tuple[int, ...]
    image_shape: tuple[int, int, int]
    num_classes: int

    @abstractmethod
    def supernet(self) -> Supernet:
        """Return a new supernet."""

    @abstractmethod
    def build(self, genotype: Genotype) -> nn.Module:
        """Return the stand-alone network, which maps (B, C, H, W) to logits (B, num_classes)."""

    @abstractmethod
    def parts(self) -> Iterator[Part]:
        """Yield the parts of all stand-alone networks; they must add up to the cost of each architecture."""

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
    def option_names(self, position: int) -> tuple[str, ...]:
        """Return the names of the options of one mixed operation."""

    def cells(self, genotype: Genotype) -> dict[str, list[Edge]]:
        """Return the graph of each kind of cell; empty for a space without cells."""
        return {}

    def blocks(self, network: nn.Module) -> list[nn.Module]:
        """Return the primary blocks of a network made by `build`, from input to output; each feeds the next one.

        Feature statistics are computed on their outputs. They are the stem and every cell or choice block, not the
        head.
        """
        assert isinstance(network, nn.Sequential)
        return list(network)[:-1]

    def build_with_auxiliary(self, genotype: Genotype) -> nn.Module:
        """Return the network with an auxiliary classifier; in training mode it returns (logits, auxiliary logits).

        Raises:
            ConfigError: networks of this space have no auxiliary classifier.
        """
        raise ConfigError(
            f"retraining.auxiliary_weight: networks of {self.kind} have no auxiliary classifier. Set it to 0."
        )

    def alpha_shapes(self) -> list[tuple[int, int]]:
        """Return the shapes (mixed operations, options) of the architecture parameters, in the order of the supernet.

        By default, consecutive mixed operations with the same number of options share a tensor.
        """
        shapes: list[tuple[int, int]] = []
        for options in self.num_options:
            if shapes and shapes[-1][1] == options:
                shapes[-1] = (shapes[-1][0] + 1, options)
            else:
                shapes.append((1, options))
        return shapes

    def choices(self, genotype: Genotype) -> tuple[int | None, ...]:
        """Return the option of an architecture in each mixed operation of the supernet; None for no connection."""
        return genotype

    def derive(self, log_weights: Sequence[np.ndarray[Any, Any]]) -> Genotype:
        """Return the architecture that a relaxed search favours: by default the option of largest weight at each place.

        Args:
            log_weights: One array per mixed operation, (options,).
        """
        return tuple(int(np.argmax(row)) for row in log_weights)

    def derive_within(self, log_weights: Sequence[np.ndarray[Any, Any]], max_macs: int | None) -> Genotype:
        """Return the favoured architecture with at most ``max_macs``; see `derive`.

        The weight of each option is reduced by a price times its MACs. Bisection finds the lowest price that brings the
        architecture within the limit (a Lagrangian relaxation, exact except for ties on its convex hull).

        Raises:
            GenotypeError: not even the cheapest architecture is within the limit.
        """
        self.check_limit(max_macs)
        best = self.derive(log_weights)
        if max_macs is None or self.cost(best).macs <= max_macs:
            return best
        macs = self.cost_table.macs

        def at(price: float) -> Genotype:
            return self.derive([row - price * cost for row, cost in zip(log_weights, macs, strict=True)])

        low, high = 0.0, 1e-9
        while self.cost(at(high)).macs > max_macs:
            low, high = high, 4 * high
            if high > 1e9:
                return self.cheapest()
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            low, high = (middle, high) if self.cost(at(middle)).macs > max_macs else (low, middle)
        return at(high)

    def num_skips(self, genotype: Genotype) -> int:
        """Return the number of skip connections in an architecture; many of them are a sign of collapse."""
        return sum(
            self.option_names(position)[choice] in SKIP_NAMES
            for position, choice in enumerate(self.choices(genotype))
            if choice is not None
        )

    @property
    def num_architectures(self) -> int:
        """The number of architectures: every combination of choices is one."""
        return math.prod(self.num_choices)

    def all_architectures(self) -> Iterator[Genotype]:
        """Yield every architecture once, the last decision's choices changing fastest."""
        return itertools.product(*map(range, self.num_choices))

    def sample_distinct(self, rng: np.random.Generator, number: int) -> list[Genotype]:
        """Draw different architectures uniformly; with the same seed, a larger sample begins with the smaller one.

        Raises:
            GenotypeError: the space has fewer architectures.
        """
        if number > self.num_architectures:
            raise GenotypeError(
                f"{self.kind} has {self.num_architectures:,} architectures, but {number:,} are asked for."
            )
        if self.num_architectures <= _MAX_LISTED:
            listed = list(self.all_architectures())
            return [listed[row] for row in rng.permutation(len(listed))[:number]]
        drawn: dict[Genotype, None] = {}
        while len(drawn) < number:  # repetitions are rare in a large space
            drawn.setdefault(self.sample(rng))
        return list(drawn)

    def sample(self, rng: np.random.Generator) -> Genotype:
        """Draw an architecture uniformly."""
        return tuple(int(rng.integers(n)) for n in self.num_choices)

    def mutate(self, genotype: Genotype, rng: np.random.Generator, probability: float) -> Genotype:
        """Return a genotype with each decision redrawn with ``probability``, as in SPOS; a draw may repeat the choice."""
        return tuple(
            int(rng.integers(n)) if rng.random() < probability else choice
            for n, choice in zip(self.num_choices, genotype, strict=True)
        )

    def crossover(self, first: Genotype, second: Genotype, rng: np.random.Generator) -> Genotype:
        """Return a genotype with each decision taken from one of the parents, with equal probability."""
        return tuple(a if rng.random() < 0.5 else b for a, b in zip(first, second, strict=True))

    def sample_within(self, rng: np.random.Generator, max_macs: int | None, min_macs: int | None = None) -> Genotype:
        """Draw among the architectures with ``min_macs`` to ``max_macs``: uniformly, unless they are rare; see `Window`.

        Raises:
            GenotypeError: no architecture is within the limits, or almost none is.
        """
        return self._window(max_macs, min_macs).draw(rng)

    def _window(self, max_macs: int | None, min_macs: int | None) -> Window:
        limits = (max_macs, min_macs)
        if limits not in self._windows:
            self._windows[limits] = Window(self, max_macs, min_macs)
        return self._windows[limits]

    @cached_property
    def _windows(self) -> dict[tuple[int | None, int | None], Window]:
        return {}

    @cached_property
    def cost_table(self) -> CostTable:
        """The costs of all parts; equal parts are traced once."""
        table = CostTable({}, [[{} for _ in range(options)] for options in self.num_options])
        traced: dict[Hashable, Cost] = {}
        for part in self.parts():
            key = (part.key, part.input_shape)
            if key not in traced:
                traced[key] = trace_cost(make_without_memory(part.make), part.input_shape)[0]
            row = table.fixed if part.option is None else table.options[part.option[0]][part.option[1]]
            row[part.layer] = row.get(part.layer, Cost(0, 0)) + traced[key]
        return table

    def cost(self, genotype: Genotype) -> Cost:
        """Return the parameters and MACs of an architecture, without building its network."""
        table = self.cost_table
        chosen = zip(table.totals, self.choices(genotype), strict=True)
        return sum((row[choice] for row, choice in chosen if choice is not None), table.fixed_total)

    def layer_costs(self, genotype: Genotype) -> dict[int, Cost]:
        """Return the cost of an architecture by layer."""
        table = self.cost_table
        costs = dict(table.fixed)
        for row, choice in zip(table.options, self.choices(genotype), strict=True):
            if choice is not None:
                for layer, cost in row[choice].items():
                    costs[layer] = costs.get(layer, Cost(0, 0)) + cost
        return costs

    def cheapest(self) -> Genotype:
        """Return an architecture with the fewest MACs."""
        return self.derive([-macs for macs in self.cost_table.macs])

    def check_window(self, max_macs: int | None, min_macs: int | None) -> None:
        """Make sure that there is an architecture between the limits, even if these are close; see `sample_within`."""
        self.check_limit(max_macs, min_macs)
        if min_macs is not None:
            self._window(max_macs, min_macs)

    def is_within(self, genotype: Genotype, max_macs: int | None, min_macs: int | None = None) -> bool:
        """Return whether an architecture is within the limits; each may be None."""
        if max_macs is None and min_macs is None:
            return True
        return (min_macs or 0) <= self.cost(genotype).macs <= (max_macs or math.inf)

    @cached_property
    def most_macs(self) -> int:
        """The MACs of the largest architecture."""
        return self.cost(self.derive(self.cost_table.macs)).macs

    def check_limit(self, max_macs: int | None, min_macs: int | None = None) -> None:
        """Make sure that some architecture satisfies each limit.

        Raises:
            GenotypeError: a limit excludes every architecture; the message gives the nearest valid limit.
        """
        if min_macs is not None and min_macs > self.most_macs:
            raise GenotypeError(
                f"search.min_macs ({min_macs:,}) is above the largest architecture of {self.kind}, with {self.most_macs:,} "
                "MACs. Lower it to at most that, or make the space's networks larger."
            )
        if max_macs is None:
            return
        smallest = self.cost(self.cheapest()).macs
        if max_macs < smallest:
            raise GenotypeError(
                f"search.max_macs ({max_macs:,}) is below the smallest architecture of {self.kind}, "
                f"{self.encode(self.cheapest())} with {smallest:,} MACs. Raise it to at least that, or make the "
                "space's networks smaller."
            )

    def check_genotype(self, genotype: Genotype) -> None:
        """Make sure that the genotype has one valid option per decision.

        Raises:
            GenotypeError: it does not.
        """
        fits = len(genotype) == len(self.num_choices) and all(
            0 <= choice < n for choice, n in zip(genotype, self.num_choices, strict=True)
        )
        if not fits:
            raise GenotypeError(
                f"{genotype} is not a genotype of {self.kind}, whose decisions have {self.num_choices} options."
            )
