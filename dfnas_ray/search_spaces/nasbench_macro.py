"""NAS-Bench-Macro: a chain of layers, each one of three blocks.

Source: Su et al. 2021, arXiv:2103.11922, Sec. 4. The 32x32 form is the benchmark's; other inputs, depths and widths are
settings of the same chain.
"""

from __future__ import annotations

from functools import cached_property
from typing import Literal, Self

import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from dfnas_ray.errors import GenotypeError
from dfnas_ray.ops.blocks import ConvBNReLU, InvertedResidual, ProjectedIdentity
from dfnas_ray.ops.cost import Cost, trace_cost
from dfnas_ray.search_spaces.base import Genotype, Layer, SearchSpace, Supernet

OPERATIONS = ("identity", "MB3 3x3", "MB6 5x5")  # by digit of the genotype


def make_operation(choice: int, in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Return the block of one choice: 0 identity, 1 expansion 3 kernel 3, 2 expansion 6 kernel 5."""
    if choice == 0:
        return ProjectedIdentity(in_channels, out_channels, stride)
    kernel_size, expansion = {1: (3, 3), 2: (5, 6)}[choice]
    return InvertedResidual(in_channels, out_channels, kernel_size, stride, expansion)


class NASBenchMacroConfig(BaseModel):
    """A chain of choice blocks; the defaults are the benchmark's form for 32x32 images."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["nasbench_macro"] = "nasbench_macro"
    stem_channels: int = Field(32, gt=0, description="Output channels of the first convolution.")
    stem_stride: int = Field(1, gt=0, description="Its stride: 1 for small images, 2 for large ones.")
    stage_layers: tuple[int, ...] = Field(
        (2, 3, 3), min_length=1, description="Layers per stage; the first has stride 2."
    )
    stage_channels: tuple[int, ...] = Field((64, 128, 256), min_length=1, description="Channels per stage.")
    head_channels: int = Field(1280, gt=0, description="Channels before pooling.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.stage_layers) != len(self.stage_channels):
            raise ValueError(
                f"stage_layers {self.stage_layers} and stage_channels {self.stage_channels} must have one number per stage."
            )
        if min(self.stage_layers + self.stage_channels) < 1:
            raise ValueError(
                f"stage_layers {self.stage_layers} and stage_channels {self.stage_channels} must be positive."
            )
        return self

    def space(self, image_shape: tuple[int, int, int], num_classes: int) -> NASBenchMacro:
        """Return the space for one input shape and number of classes."""
        return NASBenchMacro(self, image_shape, num_classes)


class NASBenchMacro(SearchSpace):
    """Digit strings such as ``22212220``: one digit per layer, 3^8 architectures in the benchmark's form."""

    kind = "nasbench_macro"

    def __init__(self, config: NASBenchMacroConfig, image_shape: tuple[int, int, int], num_classes: int):
        self.config = config
        self.image_shape = image_shape
        self.num_classes = num_classes
        self.positions = list(_positions(config))
        self.num_choices = (len(OPERATIONS),) * len(self.positions)

    def stem(self) -> nn.Module:
        """Return the first convolution."""
        return ConvBNReLU(self.image_shape[0], self.config.stem_channels, 3, self.config.stem_stride)

    def head(self) -> nn.Module:
        """Return the 1x1 convolution, pooling and classifier."""
        last = self.config.stage_channels[-1]
        return nn.Sequential(
            ConvBNReLU(last, self.config.head_channels, 1), _Classifier(self.config.head_channels, self.num_classes)
        )

    def supernet(self) -> Supernet:
        """Return a new supernet; each layer holds its three blocks."""
        return _MacroSupernet(self)

    def build(self, genotype: Genotype) -> nn.Module:
        """Return the stand-alone network."""
        self.check_genotype(genotype)
        blocks = [make_operation(choice, *position) for choice, position in zip(genotype, self.positions, strict=True)]
        return nn.Sequential(self.stem(), *blocks, self.head())

    def cost(self, genotype: Genotype) -> Cost:
        """Return parameters and MACs, from a table of every block traced once."""
        stem, table, head = self._costs
        total = stem[0] + head[0]
        for row, choice in zip(table, genotype, strict=True):
            total = total + row[choice][0]
        return total

    def layers(self, genotype: Genotype) -> list[Layer]:
        """Return stem, choice blocks and head."""
        stem, table, head = self._costs
        blocks = [
            Layer(f"layer {number}", OPERATIONS[choice], row[choice][1], row[choice][0])
            for number, (row, choice) in enumerate(zip(table, genotype, strict=True), start=1)
        ]
        return [
            Layer("stem", "conv 3x3", stem[1], stem[0]),
            *blocks,
            Layer("head", "conv 1x1, pool, linear", head[1], head[0]),
        ]

    def encode(self, genotype: Genotype) -> str:
        """Return one digit per layer."""
        self.check_genotype(genotype)
        return "".join(map(str, genotype))

    def decode(self, text: str) -> Genotype:
        """Parse one digit per layer."""
        num_layers, digits = len(self.num_choices), "".join(map(str, range(len(OPERATIONS))))
        if len(text) != num_layers or not set(text) <= set(digits):
            raise GenotypeError(
                f"{text!r} is not a genotype of nasbench_macro: it must be {num_layers} digits out of {digits}, one per layer."
            )
        return tuple(map(int, text))

    def cheapest(self) -> Genotype:
        """Return the architecture of the cheapest block in each layer."""
        return tuple(min(range(len(row)), key=lambda choice: row[choice][0].macs) for row in self._costs[1])

    @cached_property
    def _costs(self) -> tuple[_Traced, list[list[_Traced]], _Traced]:
        stem = trace_cost(self.stem(), self.image_shape)
        shape, table = stem[1], []
        for position in self.positions:
            row = [trace_cost(make_operation(choice, *position), shape) for choice in range(len(OPERATIONS))]
            table.append(row)
            shape = row[0][1]
        return stem, table, trace_cost(self.head(), shape)


_Traced = tuple[Cost, tuple[int, ...]]


def _positions(config: NASBenchMacroConfig) -> list[tuple[int, int, int]]:
    """Return (in_channels, out_channels, stride) of each layer."""
    positions, channels = [], config.stem_channels
    for num_layers, stage_channels in zip(config.stage_layers, config.stage_channels, strict=True):
        for number in range(num_layers):
            positions.append((channels, stage_channels, 2 if number == 0 else 1))
            channels = stage_channels
    return positions


class _Classifier(nn.Module):
    def __init__(self, channels: int, num_classes: int):
        super().__init__()
        self.linear = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


class _MacroSupernet(Supernet):
    def __init__(self, space: NASBenchMacro):
        super().__init__()
        self.stem = space.stem()
        self.choice_blocks = nn.ModuleList(
            nn.ModuleList(make_operation(choice, *position) for choice in range(len(OPERATIONS)))
            for position in space.positions
        )
        self.head = space.head()

    def forward(self, x: Tensor, genotype: Genotype) -> Tensor:
        x = self.stem(x)
        for block, choice in zip(self.choice_blocks, genotype, strict=True):
            x = block[choice](x)  # type: ignore[index]
        logits: Tensor = self.head(x)
        return logits
