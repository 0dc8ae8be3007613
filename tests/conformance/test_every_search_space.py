"""Properties that every search space must have; a new one is picked up from the union."""

from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dfnas_ray.errors import GenotypeError
from dfnas_ray.ops.cost import Cost, measure_cost
from dfnas_ray.search_spaces import NASBenchMacroConfig, SearchSpaceConfig

CONFIGS = get_args(SearchSpaceConfig) or (SearchSpaceConfig,)
SPACES = [
    config().space(shape, classes) for config in CONFIGS for shape, classes in (((3, 32, 32), 10), ((1, 16, 16), 7))
]
every_space = pytest.mark.parametrize("space", SPACES, ids=lambda space: f"{space.kind}-{space.image_shape}")


@every_space
@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_decode_is_the_inverse_of_encode(space, data):
    genotype = data.draw(st.tuples(*(st.integers(0, n - 1) for n in space.num_choices)))
    assert space.decode(space.encode(genotype)) == genotype


@every_space
@given(seed=st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_draws_stay_in_the_space(space, seed):
    rng = np.random.default_rng(seed)
    first, second = space.sample(rng), space.sample(rng)
    child = space.crossover(first, second, rng)
    for genotype in (first, second, child, space.mutate(child, rng, 0.5)):
        space.check_genotype(genotype)
    assert all(c in pair for c, pair in zip(child, zip(first, second, strict=True), strict=True))


@every_space
def test_the_table_of_costs_equals_the_built_network(space):
    rng = np.random.default_rng(0)
    for genotype in (space.cheapest(), space.sample(rng), space.sample(rng)):
        assert space.cost(genotype) == measure_cost(space.build(genotype), space.image_shape)
        total = Cost(0, 0)
        for layer in space.layers(genotype):
            total = total + layer.cost
        assert total == space.cost(genotype)


@every_space
def test_supernet_and_stand_alone_network_return_logits(space):
    genotype = space.sample(np.random.default_rng(1))
    x = torch.randn(2, *space.image_shape)
    for logits in (space.supernet().eval()(x, genotype), space.build(genotype).eval()(x)):
        assert logits.shape == (2, space.num_classes)


@every_space
def test_no_architecture_is_cheaper_than_the_cheapest(space):
    rng = np.random.default_rng(2)
    cheapest = space.cost(space.cheapest()).macs
    assert all(space.cost(space.sample(rng)).macs >= cheapest for _ in range(200))


@every_space
@pytest.mark.parametrize("text", ["", "nonsense", "9" * 8, "|nor_conv_3x3~0|", "0" * 100])
def test_a_text_of_another_space_is_refused(space, text):
    with pytest.raises(GenotypeError):
        space.decode(text)


@every_space
def test_a_limit_below_the_smallest_names_the_smallest(space):
    smallest = space.cost(space.cheapest()).macs
    with pytest.raises(GenotypeError, match=f"{smallest:,}"):
        space.check_limit(smallest - 1)
    space.check_limit(smallest)


@pytest.mark.parametrize(
    ("text", "params", "macs"),
    [
        ("00000000", 387_882, 7_713_280),
        ("11111111", 1_588_874, 53_246_464),
        ("22222222", 2_932_586, 105_660_928),
        ("22212220", 1_985_514, 85_164_544),
    ],
)
def test_nasbench_macro_reproduces_the_published_counts(text, params, macs):
    space = NASBenchMacroConfig().space((3, 32, 32), 10)
    assert space.cost(space.decode(text)) == (params, macs)
