"""Architectures within limits that almost nothing meets."""

import numpy as np
import pytest

from dfnas_ray.errors import GenotypeError
from dfnas_ray.search_spaces import NASBenchMacroConfig, ProxylessSpaceConfig


def drawn(space, count, *limits):
    rng = np.random.default_rng(1)
    return [space.sample_within(rng, *limits) for _ in range(count)]


@pytest.fixture(scope="module")
def chain():
    return NASBenchMacroConfig(stem_channels=4, stage_channels=(8, 8, 8), head_channels=8).space((1, 16, 16), 10)


@pytest.fixture(scope="module")
def large():
    return ProxylessSpaceConfig().space((3, 224, 224), 1000)


def test_at_the_smallest_architecture_that_one_is_drawn(chain, large):
    for space in (chain, large):
        least = space.cost(space.cheapest()).macs
        assert {space.cost(one).macs for one in drawn(space, 3, least)} == {least}


def test_where_they_are_rare_different_ones_within_the_limit_are_drawn(large):
    limit = round(1.05 * large.cost(large.cheapest()).macs)
    assert not any(large.is_within(large.sample(np.random.default_rng(seed)), limit) for seed in range(200))
    found = drawn(large, 10, limit)
    assert all(large.is_within(one, limit) for one in found)
    assert len(set(found)) == 10
    assert found == drawn(large, 10, limit), "the same numbers, the same architectures"


def test_where_they_are_common_they_are_the_draws_that_fit(chain):
    limit, rng = chain.most_macs // 2, np.random.default_rng(1)
    draws = [chain.sample(rng) for _ in range(200)]
    fitting = [one for one in draws if chain.is_within(one, limit)]
    assert drawn(chain, 20, limit) == fitting[:20]


def test_a_window_without_an_architecture_is_refused_with_both_limits(chain):
    least = chain.cost(chain.cheapest()).macs
    with pytest.raises(
        GenotypeError, match=r"none has between search\.min_macs .* Lower the first or raise the second"
    ):
        chain.sample_within(np.random.default_rng(0), least + 2, least + 1)
