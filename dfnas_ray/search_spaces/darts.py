"""The DARTS space: a normal and a reduction cell, each a small graph of separable and dilated convolutions.

Source: Liu et al. 2019, arXiv:1806.09055, Sec. 2.1 and 3. The search happens in a small network (8 cells of 16 channels),
the architecture found is used in a larger one (20 cells of 36 channels for CIFAR, 14 of 48 for ImageNet).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import combinations
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field
from torch import Tensor, cat, nn
from torchvision.ops import StochasticDepth

from dfnas_ray.errors import GenotypeError
from dfnas_ray.ops.blocks import Classifier, ConvBN, ConvBNReLU
from dfnas_ray.ops.cell_operations import (
    DilatedConv,
    FactorizedReduce,
    ReLUConvBN,
    SeparableConv,
    Zero,
    average_pool,
    max_pool,
)
from dfnas_ray.ops.mixed import Choice, MixedOperation, remove_affine
from dfnas_ray.search_spaces.base import Edge, Genotype, Layer, Part, SearchSpace, SpaceConfig, Supernet
from dfnas_ray.search_spaces.darts_genotype import CellGenes, format_genotype, parse_genotype

OPERATIONS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
NUM_NODES = 4  # of a cell, beside its two inputs
NUM_INPUTS = 2
EDGES = tuple((source, node) for node in range(NUM_NODES) for source in range(NUM_INPUTS + node))
CELLS = ("normal", "reduce")
_STEM_MULTIPLIER = 3
_AUXILIARY_CHANNELS = (128, 768)


class DartsConfig(SpaceConfig):
    """Cells of DARTS; the defaults are the paper's for CIFAR-10. For ImageNet: form imagenet, channels 48, layers 14."""

    kind: Literal["darts"] = "darts"
    form: Literal["cifar", "imagenet"] = Field(
        "cifar", description="One convolution before the cells, or three that reduce the size by 4."
    )
    channels: int = Field(36, gt=0, multiple_of=2, description="Channels of the first cells, stand-alone network.")
    layers: int = Field(20, ge=3, description="Cells of the stand-alone network; those at 1/3 and 2/3 reduce the size.")
    search_channels: int = Field(16, gt=0, multiple_of=2, description="Channels of the first cells of the supernet.")
    search_layers: int = Field(8, ge=3, description="Cells of the supernet.")

    has_auxiliary_classifier: ClassVar[bool] = True
    has_drop_path: ClassVar[bool] = True

    def space(self, image_shape: tuple[int, int, int], num_classes: int) -> Darts:
        """Return the space for one input shape and number of classes."""
        return Darts(self, image_shape, num_classes)


class CellPlan(NamedTuple):
    """One cell of a network.

    Attributes:
        inputs: Channels of the two cells before.
        sizes: Their (H, W).
        channels: Of each node.
        reduces: Whether this cell halves the size.
        follows_reduction: Whether the first input has twice the size of the second.
    """

    inputs: tuple[int, int]
    sizes: tuple[tuple[int, int], tuple[int, int]]
    channels: int
    reduces: bool
    follows_reduction: bool

    @property
    def kind(self) -> int:
        """Return 0 for a normal cell, 1 for a reduction cell."""
        return int(self.reduces)

    @property
    def output_channels(self) -> int:
        """All nodes, concatenated."""
        return NUM_NODES * self.channels

    @property
    def output_size(self) -> tuple[int, int]:
        """(H, W)."""
        return _halve(self.sizes[1]) if self.reduces else self.sizes[1]

    def preprocess(self) -> list[nn.Module]:
        """Return what brings both inputs to the cell's channels and size."""
        first = (
            FactorizedReduce(self.inputs[0], self.channels)
            if self.follows_reduction
            else ReLUConvBN(self.inputs[0], self.channels)
        )
        return [first, ReLUConvBN(self.inputs[1], self.channels)]

    def stride(self, source: int) -> int:
        """Return the stride of an edge from ``source``: the inputs of a reduction cell are halved."""
        return 2 if self.reduces and source < NUM_INPUTS else 1


class Darts(SearchSpace):
    """Genotypes ``Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=range(2, 6), reduce=..., reduce_concat=...)``.

    A genotype's decisions, for the normal and then the reduction cell, node by node: which two inputs (left out for the
    first node, which has only two), and the operation on each. The supernet's mixed operations are the 14 possible edges
    of either cell.
    """

    kind = "darts"

    def __init__(self, config: DartsConfig, image_shape: tuple[int, int, int], num_classes: int):
        self.config = config
        self.image_shape = image_shape
        self.num_classes = num_classes
        self.num_options = (len(OPERATIONS),) * (len(CELLS) * len(EDGES))
        operations = len(OPERATIONS) - 1  # never `none`
        cell = [count for pairs in _PAIRS for count in ([len(pairs)] if len(pairs) > 1 else []) + 2 * [operations]]
        self.num_choices = tuple(len(CELLS) * cell)

    # Networks

    def supernet(self) -> Supernet:
        """Return a new supernet in its search size; cells of one kind share their choices."""
        return _DartsSupernet(self)

    def build(self, genotype: Genotype) -> nn.Module:
        """Return the stand-alone network. Its drop-path (`torchvision.ops.StochasticDepth`) is off."""
        return DartsNetwork(self, genotype)

    def build_with_auxiliary(self, genotype: Genotype) -> nn.Module:
        """Return the stand-alone network; in training mode it returns (logits, auxiliary logits)."""
        network = DartsNetwork(self, genotype)
        network.add_auxiliary()
        return network

    def stem(self, channels: int) -> nn.ModuleList:
        """Return the one or two modules whose outputs are the first cell's inputs."""
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
        """Return the cells of a network from its width and depth."""
        size = (self.image_shape[1], self.image_shape[2])
        if self.config.form == "cifar":
            inputs, sizes = (_STEM_MULTIPLIER * channels,) * 2, (size, size)
        else:
            quarter = _halve(_halve(size))
            inputs, sizes = (channels, channels), (quarter, _halve(quarter))
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
        """The cells of the stand-alone network."""
        return self.plan(self.config.channels, self.config.layers)

    # Costs

    def parts(self) -> Iterator[Part]:
        """Yield the stand-alone network's stem, preprocessing and head, and every operation of every cell."""
        plans = self.final_plan
        channels, shape = self.config.channels, self.image_shape
        for number in range(len(self.stem(channels))):
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
        """Return stem, cells and head."""
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
        """Return for each kind of cell and each node its two (operation, source), by ascending source."""
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
        """Return the genotype of what `genes` returns; each node's two edges may come in any order."""
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
        """Return (14, 8) twice: normal and reduction cell."""
        return [(len(EDGES), len(OPERATIONS))] * len(CELLS)

    def choices(self, genotype: Genotype) -> tuple[int | None, ...]:
        """Return the operation on each of the 28 edges; None for an edge that the architecture does not have."""
        chosen: list[int | None] = [None] * len(self.num_options)
        for cell, genes in enumerate(self.genes(genotype)):
            for number, (name, source) in enumerate(genes):
                chosen[cell * len(EDGES) + EDGES.index((source, number // 2))] = OPERATIONS.index(name)
        return tuple(chosen)

    def derive(self, log_weights: Sequence[np.ndarray[Any, Any]]) -> Genotype:
        """Keep, for each node, the two edges whose heaviest operation other than `none` weighs most."""
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
        """Count the skip connections of the normal cell, whose number tells a collapse."""
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


def make_operation(name: str, channels: int, stride: int) -> nn.Module:
    """Return the operation of an edge of a stand-alone cell."""
    match name:
        case "none":
            return Zero(stride)
        case "max_pool_3x3":
            return max_pool(stride)
        case "avg_pool_3x3":
            return average_pool(stride)
        case "skip_connect":
            return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels)
        case "sep_conv_3x3" | "sep_conv_5x5":
            return SeparableConv(channels, int(name[-1]), stride)
        case "dil_conv_3x3" | "dil_conv_5x5":
            return DilatedConv(channels, int(name[-1]), stride)
    raise GenotypeError(f"{name!r} is not an operation of darts, which are {', '.join(OPERATIONS)}.")


_PAIRS = [list(combinations(range(NUM_INPUTS + node), 2)) for node in range(NUM_NODES)]


def _node(source: int) -> str:
    return ("cell k-2", "cell k-1")[source] if source < NUM_INPUTS else f"node {source - NUM_INPUTS + 1}"


def _halve(size: tuple[int, int]) -> tuple[int, int]:
    return -(-size[0] // 2), -(-size[1] // 2)


class _Cell(nn.Module):
    """A cell of one architecture; every operation with weights may be dropped as a path in training."""

    def __init__(self, plan: CellPlan, genes: CellGenes):
        super().__init__()
        self.preprocess = nn.ModuleList(plan.preprocess())
        self.sources = [source for _, source in genes]
        self.operations = nn.ModuleList(make_operation(n, plan.channels, plan.stride(s)) for n, s in genes)
        self.drop_paths = nn.ModuleList(
            nn.Identity() if isinstance(operation, nn.Identity) else StochasticDepth(0.0, "row")
            for operation in self.operations
        )

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        states = [module(x) for module, x in zip(self.preprocess, (first, second), strict=True)]
        incoming = zip(self.sources, self.operations, self.drop_paths, strict=True)
        for _ in range(NUM_NODES):
            (s1, op1, drop1), (s2, op2, drop2) = next(incoming), next(incoming)
            states.append(drop1(op1(states[s1])) + drop2(op2(states[s2])))
        return cat(states[NUM_INPUTS:], dim=1)


class DartsNetwork(nn.Module):
    """The stand-alone network of one architecture."""

    def __init__(self, space: Darts, genotype: Genotype):
        super().__init__()
        genes, self.plans, self.num_classes = space.genes(genotype), space.final_plan, space.num_classes
        self.stem = space.stem(space.config.channels)
        self.cells = nn.ModuleList(_Cell(plan, genes[plan.kind]) for plan in self.plans)
        self.classifier = Classifier(self.plans[-1].output_channels, space.num_classes)
        self.auxiliary: nn.Module | None = None
        self.auxiliary_after = 2 * len(self.plans) // 3
        self.form = space.config.form

    def add_auxiliary(self) -> None:
        """Add the classifier that helps to train deep networks, behind the second reduction cell."""
        plan = self.plans[self.auxiliary_after]
        self.auxiliary = _AuxiliaryHead(plan.output_channels, plan.output_size, self.num_classes, self.form)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Map (B, C, H, W) to logits; with the auxiliary classifier, in training mode, to both classifiers' logits."""
        states = _run_stem(self.stem, x)
        extra = None
        for number, cell in enumerate(self.cells):
            states = (states[1], cell(*states))
            if number == self.auxiliary_after and self.auxiliary is not None and self.training:
                extra = self.auxiliary(states[1])
        logits: Tensor = self.classifier(states[1])
        return logits if extra is None else (logits, extra)


def _run_stem(stem: nn.ModuleList, x: Tensor) -> tuple[Tensor, Tensor]:
    first = stem[0](x)
    return first, stem[1](first) if len(stem) > 1 else first


class _AuxiliaryHead(nn.Module):
    """Pooling 5x5, two convolutions and a classifier."""

    def __init__(self, channels: int, size: tuple[int, int], num_classes: int, form: str):
        super().__init__()
        narrow, wide = _AUXILIARY_CHANNELS
        stride = 3 if form == "cifar" else 2
        self.pool: nn.Module = nn.AvgPool2d(5, stride, count_include_pad=False)
        if min(size) < 5 + stride:  # the pooled image must have at least 2x2 pixels
            self.pool = nn.AdaptiveAvgPool2d(2)
        self.features = nn.Sequential(
            nn.Conv2d(channels, narrow, 1, bias=False),
            nn.BatchNorm2d(narrow),
            nn.ReLU(),
            nn.Conv2d(narrow, wide, 2, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
        )
        self.classifier = Classifier(wide, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(self.pool(nn.functional.relu(x))))
        return logits


class _MixedCell(nn.Module):
    """A cell of the supernet: every operation on every edge."""

    def __init__(self, plan: CellPlan):
        super().__init__()
        self.kind = plan.kind
        self.preprocess = nn.ModuleList(plan.preprocess())
        self.edges = nn.ModuleList(
            MixedOperation(_searched(name, plan.channels, plan.stride(source)) for name in OPERATIONS)
            for source, _ in EDGES
        )
        remove_affine(self)

    def forward(self, first: Tensor, second: Tensor, choices: Sequence[Choice]) -> Tensor:
        states = [module(x) for module, x in zip(self.preprocess, (first, second), strict=True)]
        number = 0
        for node in range(NUM_NODES):
            terms = []
            for source in range(NUM_INPUTS + node):
                choice = choices[number]
                if choice is not None:
                    terms.append(self.edges[number](states[source], choice))
                number += 1
            states.append(sum(terms[1:], start=terms[0]))
        return cat(states[NUM_INPUTS:], dim=1)


def _searched(name: str, channels: int, stride: int) -> nn.Module:
    """Return an edge's operation in the supernet, where pooling is normalised so that the options compare."""
    operation = make_operation(name, channels, stride)
    return nn.Sequential(operation, nn.BatchNorm2d(channels)) if "pool" in name else operation


class _DartsSupernet(Supernet):
    def __init__(self, space: Darts):
        super().__init__()
        plans = space.plan(space.config.search_channels, space.config.search_layers)
        self.stem = space.stem(space.config.search_channels)
        self.cells = nn.ModuleList(_MixedCell(plan) for plan in plans)
        self.classifier = Classifier(plans[-1].output_channels, space.num_classes)

    def forward(self, x: Tensor, choices: Sequence[Choice]) -> Tensor:
        states = _run_stem(self.stem, x)
        for cell in self.cells:
            first = int(cell.kind) * len(EDGES)  # type: ignore[arg-type]
            states = (states[1], cell(*states, choices[first : first + len(EDGES)]))
        logits: Tensor = self.classifier(states[1])
        return logits
