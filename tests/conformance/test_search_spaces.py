"""What every search space promises; a member added to the union is tested by itself."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dfnas_ray.algorithms.feature_stages import find_stages
from dfnas_ray.errors import GenotypeError
from dfnas_ray.ops.cost import Cost, measure_cost
from dfnas_ray.ops.mixed import MixedOperation, Mixture

properties = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)


def genotypes(space):
    return st.tuples(*(st.integers(0, n - 1) for n in space.num_choices))


def test_a_space_says_what_it_is_for(space):
    assert all(n > 1 for n in space.num_choices)
    assert all(len(space.option_names(position)) == n for position, n in enumerate(space.num_options))
    assert [options for rows, options in space.alpha_shapes() for _ in range(rows)] == list(space.num_options)


@given(data=st.data())
@properties
def test_encoding_is_reversible(space, data):
    genotype = data.draw(genotypes(space))
    text = space.encode(genotype)
    assert space.decode(text) == genotype
    assert space.encode(space.decode(text)) == text


@given(data=st.data())
@properties
def test_two_genotypes_never_share_a_text(space, data):
    first, second = data.draw(genotypes(space)), data.draw(genotypes(space))
    assert (space.encode(first) == space.encode(second)) == (first == second)


@given(data=st.data(), seed=st.integers(0, 2**32), probability=st.floats(0, 1))
@properties
def test_draws_mutants_and_children_belong_to_the_space(space, data, seed, probability):
    rng = np.random.default_rng(seed)
    first, second = data.draw(genotypes(space)), space.sample(rng)
    mutant, child = space.mutate(first, rng, probability), space.crossover(first, second, rng)
    for genotype in (second, mutant, child):
        space.check_genotype(genotype)
        assert all(type(choice) is int for choice in genotype)  # numpy integers do not survive JSON
    assert all(c in (a, b) for a, b, c in zip(first, second, child, strict=True))
    assert space.mutate(first, rng, 0.0) == first


def test_equal_seeds_draw_equal_architectures(space):
    draws = [[space.sample(np.random.default_rng(seed)) for seed in range(20)] for _ in range(2)]
    assert draws[0] == draws[1]
    assert len(set(draws[0])) > 1


def test_every_choice_is_drawn_equally_often(space):
    rng, count = np.random.default_rng(0), 4000
    draws = np.array([space.sample(rng) for _ in range(count)])
    for column, n in zip(draws.T, space.num_choices, strict=True):
        deviation = np.bincount(column, minlength=n) - count / n
        assert np.abs(deviation).max() < 4 * np.sqrt(count * (1 / n) * (1 - 1 / n))


@given(data=st.data())
@settings(properties, max_examples=5)
def test_the_cost_equals_that_of_the_built_network_and_of_its_layers(space, data):
    genotype = data.draw(genotypes(space))
    cost = space.cost(genotype)
    assert cost == measure_cost(space.build(genotype), space.image_shape)
    layers = space.layers(genotype)
    assert sum((layer.cost for layer in layers), Cost(0, 0)) == cost
    assert layers[-1].output_shape == (space.num_classes,)


def test_supernet_and_stand_alone_network_give_logits_of_one_shape(space):
    rng, x = np.random.default_rng(1), torch.zeros(2, *space.image_shape)
    supernet = space.supernet().eval()
    with torch.no_grad():
        for genotype in (space.cheapest(), space.sample(rng), space.sample(rng)):
            path, alone = supernet(x, space.choices(genotype)), space.build(genotype).eval()(x)
            assert path.shape == alone.shape == (2, space.num_classes)


def test_a_path_trains_one_option_of_a_mixed_operation_at_most(space):
    rng, x, trained = np.random.default_rng(1), torch.randn(2, *space.image_shape), []
    for _ in range(3):  # a path of NAS-Bench-201 may lead nowhere
        supernet = space.supernet()
        supernet(x, space.choices(space.sample(rng))).sum().backward()
        trained += [
            sum(any(p.grad is not None for p in option.parameters()) for option in module.options)
            for module in supernet.modules()
            if isinstance(module, MixedOperation)
        ]
    assert max(trained) == 1


def test_a_mixture_of_one_option_equals_that_option(space):
    supernet, genotype = space.supernet().eval(), space.sample(np.random.default_rng(2))
    x, path = torch.randn(2, *space.image_shape), space.choices(genotype)
    mixtures = [None if choice is None else Mixture((choice,), torch.ones(1)) for choice in path]
    torch.testing.assert_close(supernet(x, mixtures), supernet(x, path))


def test_a_mixture_of_all_options_has_a_gradient_for_each_weight(space):
    supernet, x = space.supernet(), torch.randn(4, *space.image_shape)
    weights = [torch.full((n,), 1 / n, requires_grad=True) for n in space.num_options]
    mixtures = [Mixture(tuple(range(len(w))), w) for w in weights]
    supernet(x, mixtures)[:, 0].sum().backward()
    for position, weight in enumerate(weights):
        moves = [bool(gradient != 0) for gradient in weight.grad]
        expected = [name != "none" for name in space.option_names(position)]
        assert moves == expected


def test_heavy_weights_are_derived(space):
    genotype = space.sample(np.random.default_rng(3))
    rows = [np.zeros(n) for n in space.num_options]
    for row, choice in zip(rows, space.choices(genotype), strict=True):
        if choice is not None:
            row[choice] = 1.0
    assert space.derive(rows) == genotype


def test_what_is_derived_within_a_limit_is_within_it_and_keeps_what_matters(space):
    rng = np.random.default_rng(4)
    rows = [np.log(rng.dirichlet(np.ones(n))) for n in space.num_options]
    free, cheapest = space.derive(rows), space.cheapest()
    smallest, unlimited = space.cost(cheapest).macs, space.cost(free).macs
    assert space.derive_within(rows, None) == free
    assert space.derive_within(rows, unlimited) == free
    middle = (smallest + unlimited) // 2
    assert smallest <= space.cost(space.derive_within(rows, middle)).macs <= middle
    assert space.cost(space.derive_within(rows, smallest)).macs == smallest


def test_nothing_is_cheaper_than_the_cheapest(space):
    rng = np.random.default_rng(2)
    smallest = space.cost(space.cheapest()).macs
    assert all(space.cost(space.sample(rng)).macs >= smallest for _ in range(500))
    for position, n in enumerate(space.num_choices):  # and no single change makes it cheaper
        for choice in range(n):
            neighbour = tuple(choice if i == position else c for i, c in enumerate(space.cheapest()))
            assert space.cost(neighbour).macs >= smallest


def test_draws_within_a_limit_stay_within_it(space):
    rng = np.random.default_rng(3)
    limit = int(np.median([space.cost(space.sample(rng)).macs for _ in range(50)]))
    assert all(space.cost(space.sample_within(rng, limit)).macs <= limit for _ in range(50))
    space.check_limit(None)


def test_a_limit_below_the_smallest_is_refused_with_the_smallest(space):
    smallest = space.cost(space.cheapest()).macs
    refusals = (
        space.check_limit,
        lambda limit: space.sample_within(np.random.default_rng(0), limit),
        lambda limit: space.derive_within([np.zeros(n) for n in space.num_options], limit),
    )
    for refuse in refusals:
        with pytest.raises(GenotypeError) as refusal:
            refuse(smallest - 1)
        assert all(text in str(refusal.value) for text in ("max_macs", space.encode(space.cheapest()), f"{smallest:,}"))


FOREIGN = [
    "",
    " ",
    "nonsense",
    "99999999",
    "-1",
    "0" * 200,
    "٠٠٠٠٠٠٠٠",
    "000\n",
    "|nor_conv_3x3~0|",
    "|nor_conv_9x9~0|+|none~0|none~1|+|none~0|none~1|none~2|",
    "Genotype()",
    "__import__('os').getcwd()",
]


@pytest.mark.parametrize("text", FOREIGN)
def test_a_wrong_text_is_refused_and_quoted(space, text):
    with pytest.raises(GenotypeError) as refusal:
        space.decode(text)
    assert repr(text) in str(refusal.value)
    assert space.kind in str(refusal.value)


def test_a_wrong_genotype_is_refused(space):
    good = space.cheapest()
    for wrong in (good[:-1], (*good, 0), (-1, *good[1:]), (space.num_choices[0], *good[1:])):
        for use in (space.check_genotype, space.encode, space.build):
            with pytest.raises(GenotypeError, match=space.kind):
                use(wrong)


def test_the_graph_of_a_cell_names_its_operations(space):
    genotype = space.sample(np.random.default_rng(5))
    for position, edges in enumerate(space.cells(genotype).values()):
        assert edges, position
        assert all(not edge.operation or edge.operation in space.option_names(0) for edge in edges)


def test_all_networks_have_the_same_stages_whatever_was_chosen(space):
    rng = np.random.default_rng(0)
    sizes = [[stage.size for stage in find_stages(space.build(space.sample(rng)), space.image_shape)] for _ in range(5)]
    assert all(found == sizes[0] for found in sizes)
    assert len(sizes[0]) >= 2
    assert all(height > smaller for (height, _), (smaller, _) in itertools.pairwise(sizes[0]))
