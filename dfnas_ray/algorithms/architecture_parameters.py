"""The architecture parameters (alphas) of a relaxed search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dfnas_ray.ops.mixed import Mixture
from dfnas_ray.search_spaces.base import Genotype, SearchSpace
from dfnas_ray.seeding import numpy_generator

_TRIES_PER_FINALIST = 20
_INITIAL_SCALE = 1e-3  # Liu et al. 2019: all options start nearly equal


def check_warmup(epochs: int, warmup_epochs: int) -> None:
    """Make sure that the alphas learn in at least one epoch.

    Raises:
        ValueError: they never do, so that the result would be that of random alphas.
    """
    if warmup_epochs >= epochs:
        raise ValueError(
            f"warmup_epochs ({warmup_epochs}) must be below epochs ({epochs}): the search chooses by its alphas, which learn "
            "only after the warm-up. Lower warmup_epochs, or raise epochs."
        )


class ArchitectureParameters(nn.Module):
    """One alpha per option of each mixed operation; the softmax over a mixed operation's alphas weighs its options.

    Args:
        space: The search space; its `alpha_shapes` are the shapes (mixed operations, options) of the tensors of alphas.
        generator: The random number generator of the initial values.
    """

    def __init__(self, space: SearchSpace, generator: torch.Generator):
        super().__init__()
        self.alphas = nn.ParameterList(
            nn.Parameter(_INITIAL_SCALE * torch.randn(shape, generator=generator)) for shape in space.alpha_shapes()
        )

    def rows(self) -> list[Tensor]:
        """Return the alphas of each mixed operation, (options,)."""
        return [row for group in self.alphas for row in group.unbind()]

    def probabilities(self) -> list[Tensor]:
        """Return the softmax of each row."""
        return [row for group in self.alphas for row in group.softmax(dim=1).unbind()]

    def mixtures(self) -> list[Mixture]:
        """Return a mixture of all options for each mixed operation."""
        return [Mixture(tuple(range(len(weights))), weights) for weights in self.probabilities()]

    @torch.no_grad()
    def log_probabilities(self) -> list[np.ndarray[Any, Any]]:
        """Return the logarithm of each row's softmax, in float64."""
        return [row.double().log_softmax(dim=0).cpu().numpy() for row in self.rows()]

    @torch.no_grad()
    def entropy(self) -> float:
        """Return the mean entropy of the rows, in nats; it measures how undecided the search is."""
        return float(torch.stack([-(p * p.clamp_min(1e-12).log()).sum() for p in self.probabilities()]).mean())


def likely_architectures(
    space: SearchSpace, rows: Sequence[np.ndarray[Any, Any]], max_macs: int | None, count: int, seed: int
) -> list[Genotype]:
    """Return up to ``count`` different architectures within the limit: the result of `derive_within`, then others.

    The others are derived from log-probabilities with Gumbel noise (Gumbel 1954). The maximum is then a draw according
    to the probabilities, so an undecided row varies and a decided one does not.

    Args:
        rows: Log-probabilities of each mixed operation, (options,).
        seed: The seed of the noise.
    """
    rng, found = numpy_generator(seed, "finalists"), [space.derive_within(rows, max_macs)]
    for _ in range(_TRIES_PER_FINALIST * count):
        if len(found) >= count:
            break
        genotype = space.derive_within([row + rng.gumbel(size=row.shape) for row in rows], max_macs)
        if genotype not in found:
            found.append(genotype)
    return found
