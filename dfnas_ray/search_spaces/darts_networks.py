"""The cells and networks of DARTS genotypes, stand-alone and as a supernet.

Source: Liu et al. 2019, arXiv:1806.09055, Sec. 2.1 and 3; the auxiliary classifier follows Szegedy et al. 2015.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from torch import Tensor, cat, nn

from dfnas_ray.errors import GenotypeError
from dfnas_ray.ops.blocks import Classifier
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
from dfnas_ray.search_spaces.base import Supernet
from dfnas_ray.search_spaces.darts_genotype import CellGenes

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
NUM_NODES = 4  # of a cell, without its two inputs
NUM_INPUTS = 2
EDGES = tuple((source, node) for node in range(NUM_NODES) for source in range(NUM_INPUTS + node))
_AUXILIARY_CHANNELS = (128, 768)


class CellPlan(NamedTuple):
    """The channels and sizes of one cell of a network.

    Attributes:
        inputs: Output channels of the two previous cells.
        sizes: Output sizes (H, W) of the two previous cells.
        channels: Channels of each node.
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
        """0 for a normal cell, 1 for a reduction cell."""
        return int(self.reduces)

    @property
    def output_channels(self) -> int:
        """The channels of all nodes, concatenated."""
        return NUM_NODES * self.channels

    @property
    def output_size(self) -> tuple[int, int]:
        """The output size (H, W)."""
        return halve(self.sizes[1]) if self.reduces else self.sizes[1]

    def preprocess(self) -> list[nn.Module]:
        """Return the modules that bring both inputs to the cell's channels and size."""
        first = (
            FactorizedReduce(self.inputs[0], self.channels)
            if self.follows_reduction
            else ReLUConvBN(self.inputs[0], self.channels)
        )
        return [first, ReLUConvBN(self.inputs[1], self.channels)]

    def stride(self, source: int) -> int:
        """Return the stride of an edge from ``source``; it is 2 from the inputs of a reduction cell."""
        return 2 if self.reduces and source < NUM_INPUTS else 1


def make_operation(name: str, channels: int, stride: int) -> nn.Module:
    """Return the operation of an edge of a stand-alone cell, by name."""
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


def halve(size: tuple[int, int]) -> tuple[int, int]:
    """Return the size after a stride of 2."""
    return -(-size[0] // 2), -(-size[1] // 2)


class _Cell(nn.Module):
    """A cell of one architecture; drop-path may drop every operation except an identity in training."""

    def __init__(self, plan: CellPlan, genes: CellGenes):
        from torchvision.ops import StochasticDepth  # imported late: it takes seconds

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

    def __init__(
        self,
        stem: nn.ModuleList,
        plans: Sequence[CellPlan],
        genes: Sequence[CellGenes],
        num_classes: int,
        form: Literal["cifar", "imagenet"],
    ):
        super().__init__()
        self.plans, self.num_classes, self.form = plans, num_classes, form
        self.stem = stem
        self.cells = nn.ModuleList(_Cell(plan, genes[plan.kind]) for plan in plans)
        self.classifier = Classifier(plans[-1].output_channels, num_classes)
        self.auxiliary: nn.Module | None = None
        self.auxiliary_after = 2 * len(plans) // 3

    def add_auxiliary(self) -> None:
        """Add the auxiliary classifier, which helps to train deep networks, after the second reduction cell."""
        plan = self.plans[self.auxiliary_after]
        self.auxiliary = _AuxiliaryHead(plan.output_channels, plan.output_size, self.num_classes, self.form)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Map (B, C, H, W) to logits, or to both classifiers' logits with an auxiliary classifier in training mode."""
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
    """The auxiliary classifier: pooling 5x5, two convolutions and a linear layer."""

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
    """Return an edge's operation in the supernet; BatchNorm after pooling makes the options comparable."""
    operation = make_operation(name, channels, stride)
    return nn.Sequential(operation, nn.BatchNorm2d(channels)) if "pool" in name else operation


class DartsSupernet(Supernet):
    """The supernet: every operation on every edge, with shared weights."""

    def __init__(self, stem: nn.ModuleList, plans: Sequence[CellPlan], num_classes: int):
        super().__init__()
        self.stem = stem
        self.cells = nn.ModuleList(_MixedCell(plan) for plan in plans)
        self.classifier = Classifier(plans[-1].output_channels, num_classes)

    def forward(self, x: Tensor, choices: Sequence[Choice]) -> Tensor:
        """Map (B, C, H, W) to logits, with one choice for each mixed operation."""
        states = _run_stem(self.stem, x)
        for cell in self.cells:
            first = int(cell.kind) * len(EDGES)  # type: ignore[arg-type]
            states = (states[1], cell(*states, choices[first : first + len(EDGES)]))
        logits: Tensor = self.classifier(states[1])
        return logits
