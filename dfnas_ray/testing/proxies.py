"""The tests of zero-cost proxies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import torch

from dfnas_ray.algorithms.zero_cost.proxies import PROXIES, Proxy, measure_proxy
from dfnas_ray.algorithms.zero_cost.untrained import UntrainedNetwork, initialize
from dfnas_ray.config.code import path_of
from dfnas_ray.search_spaces import SearchSpace
from dfnas_ray.testing.member import MemberSuite
from dfnas_ray.testing.small import IMAGE_SHAPE, NUM_CLASSES, SMALL_CHAIN, small_batches
from dfnas_ray.training.batches import Batch


class ProxySuite(MemberSuite):
    """The tests that every zero-cost proxy must pass.

    Attributes:
        proxy: The class to test.
        proxies: Several classes to test.
    """

    family = PROXIES
    argument = "proxy"
    plural = "proxies"
    proxies: ClassVar[Sequence[type[Proxy]] | None] = None

    if TYPE_CHECKING:
        proxy: Any
    else:

        @pytest.fixture
        def proxy(self) -> Any:
            """Fail with a message that says what is missing."""
            pytest.fail(f"{type(self).__name__} gives no member: set proxy = MyProxy in it")

    @pytest.fixture
    def member(self, proxy: type[Proxy]) -> type:
        """The class of the proxy."""
        return proxy

    @pytest.fixture
    def space(self) -> SearchSpace:
        """A small chain of blocks."""
        return SMALL_CHAIN.space(IMAGE_SHAPE, NUM_CLASSES)

    def test_it_measures_a_finite_number_for_each_of_its_figures(self, proxy: Any, space: SearchSpace) -> None:
        """This holds for small and for large networks."""
        for genotype in (space.cheapest(), space.derive(space.cost_table.macs)):
            figures = measure_proxy(path_of(proxy), _untrained(space, genotype))
            assert set(figures) == set(proxy.figures)
            assert all(math.isfinite(value) for value in figures.values())

    def test_it_tells_architectures_apart(self, proxy: Any, space: SearchSpace) -> None:
        """The smallest and the largest network have different figures."""
        small, large = space.cheapest(), space.derive(space.cost_table.macs)
        first, second = (proxy().measure(_untrained(space, genotype)) for genotype in (small, large))
        assert first != second

    def test_it_leaves_the_network_as_it_was(self, proxy: Any, space: SearchSpace) -> None:
        """Other proxies measure the same network afterwards."""
        candidate = _untrained(space, space.derive(space.cost_table.macs))
        before = [parameter.detach().clone() for parameter in candidate.network.parameters()]
        proxy().measure(candidate)
        assert candidate.network.training
        after = candidate.network.parameters()
        assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))

    def test_measured_again_it_is_the_same(self, proxy: Any, space: SearchSpace) -> None:
        """All random numbers come from the candidate's generator."""
        genotype = space.derive(space.cost_table.macs)
        first = proxy().measure(_untrained(space, genotype))
        torch.manual_seed(77)
        assert proxy().measure(_untrained(space, genotype)) == first

    def test_it_looks_at_what_it_says(self, proxy: Any, space: SearchSpace) -> None:
        """A score is measured again after the images changed only if it depends on them."""
        genotype = space.derive(space.cost_table.macs)
        first = proxy().measure(_untrained(space, genotype))
        if proxy.looks_at != "images":
            assert proxy().measure(_untrained(space, genotype, other_images=True)) == first
        if proxy.looks_at != "probe":
            assert proxy().measure(_untrained(space, genotype, other_probe=True)) == first


def _untrained(
    space: SearchSpace, genotype: Any, other_images: bool = False, other_probe: bool = False
) -> UntrainedNetwork:
    """Return a freshly initialised network, the same each time, with everything that a proxy may use."""
    torch.manual_seed(0)
    network = space.build(genotype)
    initialize(network)
    batches = small_batches().first(2)
    probe = torch.randn(16, *IMAGE_SHAPE, generator=torch.Generator().manual_seed(4 + other_probe))
    if other_images:
        batches = [Batch(batch.images.flip(0) * 0.5 + 0.3, batch.teacher_logits.roll(1, 0)) for batch in batches]
    blocks, cost, generator = space.blocks(network), space.cost(genotype), torch.Generator().manual_seed(0)
    return UntrainedNetwork(network.train(), blocks, cost, batches, probe, IMAGE_SHAPE, generator)
