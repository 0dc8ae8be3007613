"""The costs of the parts of a search space, from which every architecture's cost follows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from dfnas_ray.ops.cost import Cost


@dataclass(frozen=True)
class CostTable:
    """The costs of all parts of a space; an architecture's cost is the sum over its parts.

    Attributes:
        fixed: The cost of the parts that every architecture has, by layer.
        options: For each mixed operation and option, the cost by layer.
    """

    fixed: dict[int, Cost]
    options: list[list[dict[int, Cost]]]

    @cached_property
    def fixed_total(self) -> Cost:
        """The cost of all parts that every architecture has."""
        return sum(self.fixed.values(), Cost(0, 0))

    @cached_property
    def totals(self) -> list[list[Cost]]:
        """The cost of each option of each mixed operation, over its layers."""
        return [[sum(option.values(), Cost(0, 0)) for option in row] for row in self.options]

    @cached_property
    def macs(self) -> list[np.ndarray[Any, np.dtype[np.float64]]]:
        """The MACs of each option, one array (options,) per mixed operation."""
        return [np.array([cost.macs for cost in row], dtype=np.float64) for row in self.totals]
