"""The tests of search spaces."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from dfnas_ray.algorithms.feature_stages import find_stages
from dfnas_ray.errors import GenotypeError
from dfnas_ray.ops.cost import Cost, measure_cost
from dfnas_ray.ops.mixed import MixedOperation, Mixture
from dfnas_ray.search_spaces import SPACES, Genotype, SearchSpace
from dfnas_ray.testing.member import ConfigSuite

FOREIGN_TEXTS = (
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
)

_built: dict[tuple[type, str, object, int], SearchSpace] = {}


class SearchSpaceSuite(ConfigSuite):
    """The tests that every search space must pass.

    Give settings that make small networks, so that the tests take seconds.

    Attributes:
        inputs: The image shapes (C, H, W) and numbers of classes of the tests; odd sides reveal wrong paddings.
    """

    family = SPACES
    inputs: ClassVar[Sequence[tuple[tuple[int, int, int], int]]] = (((1, 16, 16), 10), ((3, 33, 32), 7))

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run each test for each space with each input."""
        super().pytest_generate_tests(metafunc)
        if "image_shape" in metafunc.fixturenames:
            ids = ["x".join(map(str, shape)) for shape, _ in self.inputs]
            metafunc.parametrize(("image_shape", "num_classes"), self.inputs, ids=ids)

    @pytest.fixture
    def space(self, config: Any, image_shape: tuple[int, int, int], num_classes: int) -> SearchSpace:
        """The space. Do not change it: tests share it, because its cost table takes time."""
        key = (type(config), config.model_dump_json(), image_shape, num_classes)
        if key not in _built:
            _built[key] = config.space(image_shape, num_classes)
        return _built[key]

    def test_it_says_what_it_is_for(self, space: SearchSpace, config: Any) -> None:
        """It has the kind of its settings, decisions with options, and a name for each option."""
        assert space.kind == config.kind
        assert all(n > 1 for n in space.num_choices)
        assert all(len(space.option_names(position)) == n for position, n in enumerate(space.num_options))
        assert [options for rows, options in space.alpha_shapes() for _ in range(rows)] == list(space.num_options)

    def test_it_is_made_for_any_input(self, space: SearchSpace, image_shape: Any, num_classes: int) -> None:
        """It takes the teacher's image shape and classes; `dfnas space list` shows the published ones."""
        assert (space.image_shape, space.num_classes) == (image_shape, num_classes)

    def test_encoding_is_reversible(self, space: SearchSpace) -> None:
        """Run directories store genotypes as text."""
        for genotype in _draws(space, 50):
            text = space.encode(genotype)
            assert space.decode(text) == genotype
            assert space.encode(space.decode(text)) == text

    def test_two_genotypes_never_share_a_text(self, space: SearchSpace) -> None:
        """This includes genotypes that differ in a single decision."""
        genotypes = list(dict.fromkeys([*_draws(space, 50), *_neighbours(space, space.cheapest())]))
        assert len({space.encode(genotype) for genotype in genotypes}) == len(genotypes)

    def test_draws_mutants_and_children_belong_to_it(self, space: SearchSpace) -> None:
        """Algorithms use these three to move through the space."""
        rng = np.random.default_rng(5)
        for number, first in enumerate(_draws(space, 50)):
            second = space.sample(rng)
            mutant, child = space.mutate(first, rng, number / 50), space.crossover(first, second, rng)
            for genotype in (second, mutant, child):
                space.check_genotype(genotype)
                assert all(type(choice) is int for choice in genotype), "numpy integers do not survive JSON"
            assert all(c in (a, b) for a, b, c in zip(first, second, child, strict=True))
            assert space.mutate(first, rng, 0.0) == first

    def test_equal_seeds_draw_equal_architectures(self, space: SearchSpace) -> None:
        """All randomness comes from the given generator."""
        draws = [[space.sample(np.random.default_rng(seed)) for seed in range(20)] for _ in range(2)]
        assert draws[0] == draws[1]
        assert len(set(draws[0])) > 1

    def test_all_architectures_are_listed_once(self, space: SearchSpace) -> None:
        """`dfnas truth` trains all of them, or some distinct ones."""
        first = list(itertools.islice(space.all_architectures(), 200))
        assert len({space.encode(genotype) for genotype in first}) == min(200, space.num_architectures)
        few, many = (space.sample_distinct(np.random.default_rng(6), min(n, space.num_architectures)) for n in (5, 12))
        assert many[: len(few)] == few
        assert len({space.encode(genotype) for genotype in many}) == len(many)
        for genotype in (*first, *many):
            space.check_genotype(genotype)
        with pytest.raises(GenotypeError, match="are asked for"):
            space.sample_distinct(np.random.default_rng(6), space.num_architectures + 1)

    def test_every_choice_is_drawn_equally_often(self, space: SearchSpace) -> None:
        """Random search is the baseline, so it must not prefer any option."""
        rng, count = np.random.default_rng(0), 4000
        draws = np.array([space.sample(rng) for _ in range(count)])
        for column, n in zip(draws.T, space.num_choices, strict=True):
            deviation = np.bincount(column, minlength=n) - count / n
            assert np.abs(deviation).max() < 4 * np.sqrt(count * (1 / n) * (1 - 1 / n))

    def test_the_cost_equals_that_of_the_built_network_and_of_its_layers(self, space: SearchSpace) -> None:
        """`parts` add up to the parameters and the MACs of a built network."""
        for genotype in _draws(space, 4):
            cost = space.cost(genotype)
            assert cost == measure_cost(space.build(genotype), space.image_shape)
            layers = space.layers(genotype)
            assert sum((layer.cost for layer in layers), Cost(0, 0)) == cost
            assert layers[-1].output_shape == (space.num_classes,)

    def test_supernet_and_stand_alone_network_give_logits_of_one_shape(self, space: SearchSpace) -> None:
        """This holds along any path."""
        rng, x = np.random.default_rng(1), torch.zeros(2, *space.image_shape)
        supernet = space.supernet().eval()
        with torch.no_grad():
            for genotype in (space.cheapest(), space.sample(rng), space.sample(rng)):
                path, alone = supernet(x, space.choices(genotype)), space.build(genotype).eval()(x)
                assert path.shape == alone.shape == (2, space.num_classes)

    def test_the_blocks_of_a_network_are_called_one_after_the_other(self, space: SearchSpace) -> None:
        """Scores of untrained networks use the feature maps that each block returns."""
        network, handed_on = space.build(space.cheapest()).eval(), list[tuple[int, int]]()
        blocks = space.blocks(network)
        for number, block in enumerate(blocks):
            block.register_forward_hook(
                lambda module, inputs, output, number=number: handed_on.append((number, output.ndim))
            )
        with torch.no_grad():
            network(torch.zeros(2, *space.image_shape))
        assert handed_on == [(number, 4) for number in range(len(blocks))]
        assert handed_on

    def test_a_path_trains_one_option_of_a_mixed_operation_at_most(self, space: SearchSpace) -> None:
        """The supernet is made of `MixedOperation`, and a path goes through one option of each."""
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

    def test_a_mixture_of_one_option_equals_that_option(self, space: SearchSpace) -> None:
        """Gradient searches mix options, one-shot searches take one: both see the same network."""
        supernet, genotype = space.supernet().eval(), space.sample(np.random.default_rng(2))
        x, path = torch.randn(2, *space.image_shape), space.choices(genotype)
        mixtures = [None if choice is None else Mixture((choice,), torch.ones(1)) for choice in path]
        torch.testing.assert_close(supernet(x, mixtures), supernet(x, path))

    def test_a_mixture_of_all_options_has_a_gradient_for_each_weight(self, space: SearchSpace) -> None:
        """Options called none are an exception, because they pass nothing on."""
        supernet, x = space.supernet(), torch.randn(4, *space.image_shape)
        weights = [torch.full((n,), 1 / n, requires_grad=True) for n in space.num_options]
        mixtures = [Mixture(tuple(range(len(w))), w) for w in weights]
        supernet(x, mixtures)[:, 0].sum().backward()
        for position, weight in enumerate(weights):
            assert weight.grad is not None, f"mixed operation {position} is not used"
            moves = [bool(gradient != 0) for gradient in weight.grad]
            expected = [name != "none" for name in space.option_names(position)]
            assert moves == expected, f"mixed operation {position}: options without a gradient must be called none"

    def test_heavy_weights_are_derived(self, space: SearchSpace) -> None:
        """`derive` returns the architecture with the largest weights."""
        genotype = space.sample(np.random.default_rng(3))
        rows = [np.zeros(n) for n in space.num_options]
        for row, choice in zip(rows, space.choices(genotype), strict=True):
            if choice is not None:
                row[choice] = 1.0
        assert space.derive(rows) == genotype

    def test_what_is_derived_within_a_limit_is_within_it_and_keeps_what_matters(self, space: SearchSpace) -> None:
        """`search.max_macs` holds for gradient searches."""
        rng = np.random.default_rng(4)
        rows = [np.log(rng.dirichlet(np.ones(n))) for n in space.num_options]
        free, cheapest = space.derive(rows), space.cheapest()
        smallest, unlimited = space.cost(cheapest).macs, space.cost(free).macs
        assert space.derive_within(rows, None) == free
        assert space.derive_within(rows, unlimited) == free
        middle = (smallest + unlimited) // 2
        assert smallest <= space.cost(space.derive_within(rows, middle)).macs <= middle
        assert space.cost(space.derive_within(rows, smallest)).macs == smallest

    def test_nothing_is_cheaper_than_the_cheapest(self, space: SearchSpace) -> None:
        """A limit below its MACs is refused."""
        rng = np.random.default_rng(2)
        smallest = space.cost(space.cheapest()).macs
        assert all(space.cost(space.sample(rng)).macs >= smallest for _ in range(500))
        for neighbour in _neighbours(space, space.cheapest()):  # and no single change makes it cheaper
            assert space.cost(neighbour).macs >= smallest

    def test_draws_within_a_limit_stay_within_it(self, space: SearchSpace) -> None:
        """`search.max_macs` holds for draws."""
        rng = np.random.default_rng(3)
        limit = int(np.median([space.cost(space.sample(rng)).macs for _ in range(50)]))
        assert all(space.cost(space.sample_within(rng, limit)).macs <= limit for _ in range(50))
        space.check_limit(None)

    def test_a_limit_below_the_smallest_is_refused_with_the_smallest(self, space: SearchSpace) -> None:
        """The error names the smallest possible limit."""
        smallest = space.cost(space.cheapest()).macs
        refusals = (
            space.check_limit,
            lambda limit: space.sample_within(np.random.default_rng(0), limit),
            lambda limit: space.derive_within([np.zeros(n) for n in space.num_options], limit),
        )
        for refuse in refusals:
            with pytest.raises(GenotypeError) as refusal:
                refuse(smallest - 1)
            message = str(refusal.value)
            assert all(text in message for text in ("max_macs", space.encode(space.cheapest()), f"{smallest:,}"))

    @pytest.mark.parametrize("text", FOREIGN_TEXTS)
    def test_a_wrong_text_is_refused_and_quoted(self, space: SearchSpace, text: str) -> None:
        """The error names the space, too. A text that this space can decode must encode to itself."""
        try:
            decoded = space.decode(text)
        except GenotypeError as error:
            message = str(error)
        else:
            assert space.encode(decoded) == text, f"{text!r} is not a genotype, and decode() accepts it"
            return
        assert repr(text) in message
        assert space.kind in message

    def test_a_wrong_genotype_is_refused(self, space: SearchSpace) -> None:
        """It may be too short, too long, or have choices below or above the options."""
        good = space.cheapest()
        for wrong in (good[:-1], (*good, 0), (-1, *good[1:]), (space.num_choices[0], *good[1:])):
            for use in (space.check_genotype, space.encode, space.build):
                with pytest.raises(GenotypeError, match=space.kind):
                    use(wrong)

    def test_the_graph_of_a_cell_names_its_operations(self, space: SearchSpace) -> None:
        """Drawings show the cells; a chain has none."""
        genotype = space.sample(np.random.default_rng(5))
        for cell, edges in space.cells(genotype).items():
            assert edges, cell
            assert all(not edge.operation or edge.operation in space.option_names(0) for edge in edges)

    def test_all_networks_have_the_same_stages_whatever_was_chosen(self, space: SearchSpace) -> None:
        """Features are compared with those of the teacher, by their size."""
        rng = np.random.default_rng(0)
        networks = [space.build(space.sample(rng)) for _ in range(5)]
        sizes = [[stage.size for stage in find_stages(network, space.image_shape)] for network in networks]
        assert all(found == sizes[0] for found in sizes)
        assert sizes[0], "a network must have feature maps larger than 1x1"
        assert all(height > smaller for (height, _), (smaller, _) in itertools.pairwise(sizes[0]))

    def test_a_network_learns(self, space: SearchSpace) -> None:
        """Every weight of a built network gets a finite gradient, or none if its branch leads nowhere."""
        network = space.build(space.derive(space.cost_table.macs)).train()
        network(torch.randn(4, *space.image_shape)).square().mean().backward()
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        assert gradients
        assert all(bool(gradient.isfinite().all()) for gradient in gradients)

    def test_it_and_its_networks_are_pickled(self, space: SearchSpace) -> None:
        """They are sent to workers."""
        genotype = space.cheapest()
        copied = pickle.loads(pickle.dumps(space))
        assert copied.cost(genotype) == space.cost(genotype)
        pickle.loads(pickle.dumps(space.build(genotype)))


def _draws(space: SearchSpace, count: int) -> list[Genotype]:
    """Return the genotypes of all first and of all last options, and ``count`` random ones."""
    rng = np.random.default_rng(11)
    drawn = [tuple(int(rng.integers(n)) for n in space.num_choices) for _ in range(count)]
    return [tuple(0 for _ in space.num_choices), tuple(n - 1 for n in space.num_choices), *drawn]


def _neighbours(space: SearchSpace, genotype: Genotype) -> Iterator[Genotype]:
    """Yield all genotypes that differ in at most one decision."""
    for position, n in enumerate(space.num_choices):
        for choice in range(n):
            yield tuple(choice if i == position else c for i, c in enumerate(genotype))
