"""NAS-Bench-201: one cell, repeated, with an operation on each of its six edges.

Source: Dong & Yang 2020, arXiv:2001.00326, Sec. 2.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from dfnas_ray.errors import GenotypeError
from dfnas_ray.limits import DEEP, WIDE
from dfnas_ray.ops.blocks import Classifier, ConvBN
from dfnas_ray.ops.cell_operations import ReLUConvBN, Zero, average_pool
from dfnas_ray.ops.cost import Cost
from dfnas_ray.ops.mixed import Choice, MixedOperation, remove_affine
from dfnas_ray.search_spaces.base import Edge, Genotype, Layer, Part, SearchSpace, SpaceConfig, Supernet

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
NUM_NODES = 4
EDGES = tuple((source, target) for target in range(1, NUM_NODES) for source in range(target))
_NUM_STAGES = 3


class NASBench201Config(SpaceConfig):
    """The cell-based benchmark; the defaults are its full size."""

    kind: Literal["nasbench201"] = "nasbench201"
    channels: int = Field(16, gt=0, le=WIDE, description="Channels of the first stage; each later stage doubles them.")
    cells_per_stage: int = Field(5, gt=0, le=DEEP, description="N: number of cells in each of the three stages.")

    def space(self, image_shape: tuple[int, int, int], num_classes: int) -> NASBench201:
        """Return the space for one input shape and number of classes."""
        return NASBench201(self, image_shape, num_classes)


class NASBench201(SearchSpace):
    """The space of 5^6 = 15,625 cells, with genotypes ``|op~0|+|op~0|op~1|+|op~0|op~1|op~2|``.

    The supernet's BatchNorms have no scale and shift.
    """

    kind = "nasbench201"

    def __init__(self, config: NASBench201Config, image_shape: tuple[int, int, int], num_classes: int):
        self.config = config
        self.image_shape = image_shape
        self.num_classes = num_classes
        self.num_choices = self.num_options = (len(OPERATIONS),) * len(EDGES)

    def supernet(self) -> Supernet:
        """Return a new supernet: all cells hold all operations on all edges."""
        supernet = _CellSupernet(self)
        remove_affine(supernet)
        return supernet

    def build(self, genotype: Genotype) -> nn.Module:
        """Return the stand-alone network."""
        self.check_genotype(genotype)
        return nn.Sequential(
            *(
                module if module is not None else _Cell(self.channels_of(layer), genotype)
                for layer, module in enumerate(self._skeleton())
            )
        )

    def parts(self) -> Iterator[Part]:
        """Yield the stem, the reductions, the head, and every operation of every cell."""
        for layer, module in enumerate(self._outline):
            channels, shape = self.channels_of(layer), self._input_shape(layer)
            if module is not None:
                make = partial(self._make_layer, layer)
                yield Part(layer, None, (type(module).__name__, channels), make, shape)
                continue
            for edge in range(len(EDGES)):
                for option, name in enumerate(OPERATIONS):
                    yield Part(layer, (edge, option), (name, channels), partial(make_operation, name, channels), shape)

    def layers(self, genotype: Genotype) -> list[Layer]:
        """Return the stem, the cells, the reductions and the head."""
        costs, layers, number = self.layer_costs(genotype), [], 0
        count = len(self._outline)
        for layer, module in enumerate(self._outline):
            shape = self._input_shape(layer + 1) if layer < count - 1 else (self.num_classes,)
            if module is None:
                number += 1
                name, operation = f"cell {number}", "cell"
            elif isinstance(module, _Reduction):
                name, operation = "reduction", "residual block"
            else:
                name, operation = ("stem", "conv 3x3") if layer == 0 else ("head", "pool, linear")
            layers.append(Layer(name, operation, shape, costs.get(layer, Cost(0, 0))))
        return layers

    def option_names(self, position: int) -> tuple[str, ...]:
        """Return the five operations, the same on every edge."""
        return OPERATIONS

    def cells(self, genotype: Genotype) -> dict[str, list[Edge]]:
        """Return the cell's graph without edges whose operation is ``none``."""
        return {
            "cell": [
                Edge(_node(source), _node(target), OPERATIONS[choice])
                for (source, target), choice in zip(EDGES, genotype, strict=True)
                if OPERATIONS[choice] != "none"
            ]
        }

    def encode(self, genotype: Genotype) -> str:
        """Return the genotype in the benchmark's notation."""
        self.check_genotype(genotype)
        names = [f"{OPERATIONS[choice]}~{source}" for (source, _), choice in zip(EDGES, genotype, strict=True)]
        nodes = [names[target * (target - 1) // 2 : target * (target + 1) // 2] for target in range(1, NUM_NODES)]
        return "+".join(f"|{'|'.join(node)}|" for node in nodes)

    def decode(self, text: str) -> Genotype:
        """Parse the benchmark's notation."""
        found = re.fullmatch(_PATTERN, text)
        unknown = [name for name in found.groups() if name not in OPERATIONS] if found else []
        if found is None or unknown:
            why = f"{unknown[0]!r} is none of {', '.join(OPERATIONS)}" if unknown else f"it must look like {_EXAMPLE}"
            raise GenotypeError(f"{text!r} is not a genotype of nasbench201: {why}.")
        return tuple(OPERATIONS.index(name) for name in found.groups())

    def channels_of(self, layer: int) -> int:
        """Return the output channels of a layer; stem, cells and reductions count."""
        stage = sum(layer >= reduction for reduction in self._reductions)
        return self.config.channels * 2**stage

    @property
    def _reductions(self) -> tuple[int, ...]:
        cells = self.config.cells_per_stage
        return tuple(1 + cells + stage * (cells + 1) for stage in range(_NUM_STAGES - 1))

    @cached_property
    def _outline(self) -> list[nn.Module | None]:
        """The skeleton on the meta device, which needs no memory for weights."""
        with torch.device("meta"):
            return self._skeleton()

    def _make_layer(self, layer: int) -> nn.Module:
        module = self._skeleton()[layer]
        assert module is not None
        return module

    def _skeleton(self) -> list[nn.Module | None]:
        """Return all layers, with None in place of each cell."""
        channels = self.config.channels
        layers: list[nn.Module | None] = [ConvBN(self.image_shape[0], channels, 3)]
        for stage in range(_NUM_STAGES):
            if stage:
                layers.append(_Reduction(channels, 2 * channels))
                channels *= 2
            layers += [None] * self.config.cells_per_stage
        layers.append(nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), Classifier(channels, self.num_classes)))
        return layers

    def _input_shape(self, layer: int) -> tuple[int, ...]:
        if layer == 0:
            return self.image_shape
        halvings = sum(layer > reduction for reduction in self._reductions)
        size = self.image_shape[1:]
        for _ in range(halvings):
            size = (-(-size[0] // 2), -(-size[1] // 2))
        return (self.channels_of(layer - 1), *size)


def make_operation(name: str, channels: int) -> nn.Module:
    """Return an operation by name; it keeps the shape of its input."""
    match name:
        case "none":
            return Zero()
        case "skip_connect":
            return nn.Identity()
        case "nor_conv_1x1":
            return ReLUConvBN(channels, channels, 1)
        case "nor_conv_3x3":
            return ReLUConvBN(channels, channels, 3)
        case "avg_pool_3x3":
            return average_pool()
    raise ValueError(name)


def _node(number: int) -> str:
    return {0: "input", NUM_NODES - 1: "output"}.get(number, f"node {number}")


_NAME = r"\|([a-z0-9_]+)~{}"
_PATTERN = r"\+".join(
    "".join(_NAME.format(source) for source in range(target)) + r"\|" for target in range(1, NUM_NODES)
)
_EXAMPLE = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|none~2|"


class _Cell(nn.Module):
    """The cell of one architecture."""

    def __init__(self, channels: int, genotype: Genotype):
        super().__init__()
        self.operations = nn.ModuleList(make_operation(OPERATIONS[choice], channels) for choice in genotype)

    def forward(self, x: Tensor) -> Tensor:
        return _run_cell(x, list(self.operations))


class _MixedCell(nn.Module):
    """The cell of the supernet."""

    def __init__(self, channels: int):
        super().__init__()
        self.edges = nn.ModuleList(MixedOperation(make_operation(name, channels) for name in OPERATIONS) for _ in EDGES)

    def forward(self, x: Tensor, choices: Sequence[Choice]) -> Tensor:
        return _run_cell(
            x, [lambda x, e=edge, c=choice: e(x, c) for edge, choice in zip(self.edges, choices, strict=True)]
        )


def _run_cell(x: Tensor, operations: Sequence[object]) -> Tensor:
    nodes = [x]
    for target in range(1, NUM_NODES):
        first = target * (target - 1) // 2
        incoming = [operations[first + source](nodes[source]) for source in range(target)]  # type: ignore[operator]
        nodes.append(sum(incoming[1:], start=incoming[0]))
    return nodes[-1]


class _Reduction(nn.Module):
    """A residual block of stride 2: two 3x3 convolutions beside average pooling and a 1x1 convolution."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.first = ReLUConvBN(in_channels, out_channels, 3, stride=2)
        self.second = ReLUConvBN(out_channels, out_channels, 3)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
        output: Tensor = self.shortcut(pooled) + self.second(self.first(x))
        return output


class _CellSupernet(Supernet):
    def __init__(self, space: NASBench201):
        super().__init__()
        self.layers = nn.ModuleList(
            _MixedCell(space.channels_of(layer)) if module is None else module
            for layer, module in enumerate(space._skeleton())
        )

    def forward(self, x: Tensor, choices: Sequence[Choice]) -> Tensor:
        for layer in self.layers:
            x = layer(x, choices) if isinstance(layer, _MixedCell) else layer(x)
        return x
