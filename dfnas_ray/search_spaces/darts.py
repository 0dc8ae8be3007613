"""The DARTS space: a normal and a reduction cell, each a small graph of separable and dilated convolutions.

Source: Liu et al. 2019, arXiv:1806.09055, Sec. 2.1 and 3. The search uses a small network (8 cells, 16 channels). The
architecture found is used in a larger network (20 cells and 36 channels for CIFAR, 14 cells and 48 channels for
ImageNet).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import combinations
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from torch import nn

from dfnas_ray.limits import DEEP, WIDE
from dfnas_ray.ops.blocks import Classifier, ConvBN, ConvBNReLU
from dfnas_ray.ops.cell_operations import (
    ReLUConvBN,
)
from dfnas_ray.ops.cost import make_without_memory
from dfnas_ray.search_spaces.base import Edge, Genotype, Layer, Part, SearchSpace, SpaceConfig, Supernet
from dfnas_ray.search_spaces.darts_genotype import CellGenes, format_genotype, parse_genotype
from dfnas_ray.search_spaces.darts_networks import (
    EDGES,
    NUM_INPUTS,
    NUM_NODES,
    OPERATIONS,
    CellPlan,
    DartsNetwork,
    DartsSupernet,
    halve,
    make_operation,
)

CELLS = ("normal", "reduce")
_STEM_MULTIPLIER = 3


class DartsSpaceConfig(SpaceConfig):
    """Cells of DARTS; the defaults are the paper's for CIFAR-10. For ImageNet: form imagenet, channels 48, layers 14."""

    kind: Literal["darts"] = "darts"
    form: Literal["cifar", "imagenet"] = Field(
        "cifar", description="cifar: one convolution before the cells; imagenet: three, which reduce the size by 8."
    )
    channels: int = Field(
        36, gt=0, le=WIDE, multiple_of=2, description="Channels of the first cells of the stand-alone network."
    )
    layers: int = Field(
        20, ge=3, le=DEEP, description="Cells of the stand-alone network; those at 1/3 and 2/3 reduce the size."
    )
    search_channels: int = Field(
        16, gt=0, le=WIDE, multiple_of=2, description="Channels of the first cells of the supernet."
    )
    search_layers: int = Field(8, ge=3, le=DEEP, description="Cells of the supernet.")

    has_auxiliary_classifier: ClassVar[bool] = True
    has_drop_path: ClassVar[bool] = True

    def space(self, image_shape: tuple[int, int, int], num_classes: int) -> DartsSpace:
        """Return the space for one input shape and number of classes."""
        return DartsSpace(self, image_shape, num_classes)


class DartsSpace(SearchSpace):
    """Genotypes ``Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=range(2, 6), reduce=..., reduce_concat=...)``.

    The decisions of a genotype are, for the normal and then the reduction cell, node by node: the two inputs of the
    node (left out for the first node, which has only two), and the operation on each input. The supernet's mixed
    operations are the 14 possible edges of the normal cell and the 14 of the reduction cell.
    """

    kind = "darts"

    def __init__(self, config: DartsSpaceConfig, image_shape: tuple[int, int, int], num_classes: int):
        self.config = config
        self.image_shape = image_shape
        self.num_classes = num_classes
        self.num_options = (len(OPERATIONS),) * (len(CELLS) * len(EDGES))
        operations = len(OPERATIONS) - 1  # without `none`
        cell = [count for pairs in _PAIRS for count in ([len(pairs)] if len(pairs) > 1 else []) + 2 * [operations]]
        self.num_choices = tuple(len(CELLS) * cell)

    # Networks

    def supernet(self) -> Supernet:
        """Return a new supernet of the search size; cells of one kind share their choices."""
        config = self.config
        stem = self.stem(config.search_channels)
        return DartsSupernet(stem, self.plan(config.search_channels, config.search_layers), self.num_classes)

    def build(self, genotype: Genotype) -> nn.Module:
        """Return the stand-alone network. Its drop-path (`torchvision.ops.StochasticDepth`) is off."""
        return self._network(genotype)

    def blocks(self, network: nn.Module) -> list[nn.Module]:
        """Return the stem's last module and the cells; each cell also receives the second-to-last block's output."""
        assert isinstance(network, DartsNetwork)
        return [network.stem[-1], *network.cells]

    def build_with_auxiliary(self, genotype: Genotype) -> nn.Module:
        """Return the stand-alone network; in training mode it returns (logits, auxiliary logits)."""
        network = self._network(genotype)
        network.add_auxiliary()
        return network

    def _network(self, genotype: Genotype) -> DartsNetwork:
        genes, config = self.genes(genotype), self.config
        return DartsNetwork(self.stem(config.channels), self.final_plan, genes, self.num_classes, config.form)

    def stem(self, channels: int) -> nn.ModuleList:
        """Return the one or two modules whose outputs are the inputs of the first cell."""
        in_channels = self.image_shape[0]
        if self.config.form == "cifar":
            return nn.ModuleList([ConvBN(in_channels, _STEM_MULTIPLIER * channels, 3)])
        return nn.ModuleList(
            [
                nn.Sequential(*ConvBNReLU(in_channels, channels // 2, 3, 2), *ConvBN(channels // 2, channels, 3, 2)),
                ReLUConvBN(channels, channels, 3, 2),
            ]
        )

    def plan(self, channels: int, num_layers: int) -> list[CellPlan]:
        """Return the plans of the cells of a network with this width and depth."""
        size = (self.image_shape[1], self.image_shape[2])
        if self.config.form == "cifar":
            inputs, sizes = (_STEM_MULTIPLIER * channels,) * 2, (size, size)
        else:
            quarter = halve(halve(size))
            inputs, sizes = (channels, channels), (quarter, halve(quarter))
        follows = self.config.form == "imagenet"
        plans = []
        for number in range(num_layers):
            reduces = number in (num_layers // 3, 2 * num_layers // 3)
            channels *= 2 if reduces else 1
            plan = CellPlan((inputs[0], inputs[1]), sizes, channels, reduces, follows)
            plans.append(plan)
            inputs, sizes, follows = (inputs[1], plan.output_channels), (sizes[1], plan.output_size), reduces
        return plans

    @property
    def final_plan(self) -> list[CellPlan]:
        """The plans of the cells of the stand-alone network."""
        return self.plan(self.config.channels, self.config.layers)

    # Costs

    def parts(self) -> Iterator[Part]:
        """Yield the stand-alone network's stem, preprocessing and head, and every operation of every cell."""
        plans = self.final_plan
        channels, shape = self.config.channels, self.image_shape
        for number in range(len(make_without_memory(lambda: self.stem(channels)))):
            yield Part(0, None, ("stem", number), lambda n=number: self.stem(channels)[n], shape)  # type: ignore[misc]
            shape = (channels, *plans[0].sizes[0])
        for layer, plan in enumerate(plans, start=1):
            for number in range(NUM_INPUTS):
                yield Part(
                    layer,
                    None,
                    ("preprocess", number, plan.inputs, plan.channels, plan.follows_reduction),
                    lambda plan=plan, number=number: plan.preprocess()[number],  # type: ignore[misc]
                    (plan.inputs[number], *plan.sizes[number]),
                )
            for edge, (source, _) in enumerate(EDGES):
                stride, position = plan.stride(source), plan.kind * len(EDGES) + edge
                size = plan.sizes[1] if source < NUM_INPUTS else plan.output_size
                for option, name in enumerate(OPERATIONS):
                    yield Part(
                        layer,
                        (position, option),
                        (name, plan.channels, stride),
                        partial(make_operation, name, plan.channels, stride),
                        (plan.channels, *size),
                    )
        last = plans[-1]
        head_shape = (last.output_channels, *last.output_size)
        yield Part(len(plans) + 1, None, "head", lambda: Classifier(last.output_channels, self.num_classes), head_shape)

    def layers(self, genotype: Genotype) -> list[Layer]:
        """Return the stem, the cells and the head."""
        costs, plans = self.layer_costs(genotype), self.final_plan
        cells = [
            Layer(
                f"cell {number}",
                "reduction cell" if plan.reduces else "normal cell",
                (plan.output_channels, *plan.output_size),
                costs[number],
            )
            for number, plan in enumerate(plans, start=1)
        ]
        stem_shape = (plans[0].inputs[1], *plans[0].sizes[1])
        return [
            Layer("stem", "conv 3x3", stem_shape, costs[0]),
            *cells,
            Layer("head", "pool, linear", (self.num_classes,), costs[len(plans) + 1]),
        ]

    # Genotypes

    def genes(self, genotype: Genotype) -> tuple[CellGenes, CellGenes]:
        """Return for each kind of cell the two pairs (operation, source) of every node, by ascending source."""
        self.check_genotype(genotype)
        remaining = iter(genotype)
        cells = []
        for _ in CELLS:
            genes: CellGenes = []
            for pairs in _PAIRS:
                first, second = pairs[next(remaining) if len(pairs) > 1 else 0]
                genes.append((OPERATIONS[1 + next(remaining)], first))
                genes.append((OPERATIONS[1 + next(remaining)], second))
            cells.append(genes)
        return cells[0], cells[1]

    def from_genes(self, cells: Sequence[CellGenes]) -> Genotype:
        """Return the genotype of these cells, the inverse of `genes`; the two edges of a node may be in any order."""
        genotype: list[int] = []
        for genes in cells:
            for node, pairs in enumerate(_PAIRS):
                edges = sorted(genes[2 * node : 2 * node + 2], key=lambda gene: gene[1])
                if len(pairs) > 1:
                    genotype.append(pairs.index((edges[0][1], edges[1][1])))
                genotype += [OPERATIONS.index(name) - 1 for name, _ in edges]
        return tuple(genotype)

    def option_names(self, position: int) -> tuple[str, ...]:
        """Return the eight operations, the same on every edge."""
        return OPERATIONS

    def alpha_shapes(self) -> list[tuple[int, int]]:
        """Return (14, 8) twice, for the normal and the reduction cell."""
        return [(len(EDGES), len(OPERATIONS))] * len(CELLS)

    def choices(self, genotype: Genotype) -> tuple[int | None, ...]:
        """Return the operation on each of the 28 edges; None for an edge that the architecture does not have."""
        chosen: list[int | None] = [None] * len(self.num_options)
        for cell, genes in enumerate(self.genes(genotype)):
            for number, (name, source) in enumerate(genes):
                chosen[cell * len(EDGES) + EDGES.index((source, number // 2))] = OPERATIONS.index(name)
        return tuple(chosen)

    def derive(self, log_weights: Sequence[np.ndarray[Any, Any]]) -> Genotype:
        """Return the architecture that keeps the two edges per node whose best operation (not `none`) weighs most."""
        cells: list[CellGenes] = []
        for cell in range(len(CELLS)):
            genes: CellGenes = []
            for node in range(NUM_NODES):
                edges = [
                    (source, log_weights[cell * len(EDGES) + edge][1:])
                    for edge, (source, target) in enumerate(EDGES)
                    if target == node
                ]
                kept = sorted(edges, key=lambda edge: -float(edge[1].max()))[:2]
                genes += [(OPERATIONS[1 + int(weights.argmax())], source) for source, weights in kept]
            cells.append(genes)
        return self.from_genes(cells)

    def num_skips(self, genotype: Genotype) -> int:
        """Return the number of skip connections in the normal cell; many of them are a sign of collapse."""
        return sum(name == "skip_connect" for name, _ in self.genes(genotype)[0])

    def cells(self, genotype: Genotype) -> dict[str, list[Edge]]:
        """Return the graphs of the normal and the reduction cell."""
        graphs = {}
        for kind, genes in zip(("normal cell", "reduction cell"), self.genes(genotype), strict=True):
            edges = [Edge(_node(source), f"node {n // 2 + 1}", name) for n, (name, source) in enumerate(genes)]
            outputs = [Edge(f"node {node + 1}", "output", "") for node in range(NUM_NODES)]
            graphs[kind] = edges + outputs
        return graphs

    def encode(self, genotype: Genotype) -> str:
        """Return the usual ``Genotype(...)`` text."""
        return format_genotype(*self.genes(genotype))

    def decode(self, text: str) -> Genotype:
        """Parse the usual ``Genotype(...)`` text, without evaluating it."""
        return self.from_genes(parse_genotype(text, OPERATIONS[1:], NUM_NODES, NUM_INPUTS))


_PAIRS = [list(combinations(range(NUM_INPUTS + node), 2)) for node in range(NUM_NODES)]


def _node(source: int) -> str:
    return ("cell k-2", "cell k-1")[source] if source < NUM_INPUTS else f"node {source - NUM_INPUTS + 1}"
