"""NAS-Bench-Macro: a chain of layers, each of which is one of three blocks.

Source: Su et al. 2021, arXiv:2103.11922, Sec. 4. The benchmark uses 32x32 images; other inputs, depths and widths are
settings of the same chain.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator
from torch import nn

from dfnas_ray.limits import WIDE
from dfnas_ray.ops.blocks import Classifier, ConvBNReLU, InvertedResidual, ProjectedIdentity
from dfnas_ray.search_spaces.base import SpaceConfig
from dfnas_ray.search_spaces.chain import ChainSpace, StageChannels, StageLayers, stage_positions

OPERATIONS = ("identity", "MB3 3x3", "MB6 5x5")  # by digit of the genotype


class NASBenchMacroConfig(SpaceConfig):
    """A chain of choice blocks; the defaults are the benchmark's form for 32x32 images."""

    kind: Literal["nasbench_macro"] = "nasbench_macro"
    stem_channels: int = Field(32, gt=0, le=WIDE, description="Output channels of the first convolution.")
    stem_stride: int = Field(
        1, gt=0, le=WIDE, description="Stride of the first convolution: 1 for small images, 2 for large ones."
    )
    stage_layers: tuple[StageLayers, ...] = Field(
        (2, 3, 3), min_length=1, description="Layers per stage; the first layer of each stage has stride 2."
    )
    stage_channels: tuple[StageChannels, ...] = Field((64, 128, 256), min_length=1, description="Channels per stage.")
    head_channels: int = Field(1280, gt=0, le=WIDE, description="Channels before pooling.")

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


class NASBenchMacro(ChainSpace):
    """Digit strings such as ``22212220``: one digit per layer, 3^8 architectures in the benchmark's form."""

    kind = "nasbench_macro"

    def __init__(self, config: NASBenchMacroConfig, image_shape: tuple[int, int, int], num_classes: int):
        self.config = config
        strides = (2,) * len(config.stage_layers)
        positions = stage_positions(config.stem_channels, config.stage_layers, config.stage_channels, strides)
        super().__init__(positions, image_shape, num_classes)

    def stem(self) -> nn.Module:
        """Return the first convolution."""
        return ConvBNReLU(self.image_shape[0], self.config.stem_channels, 3, self.config.stem_stride)

    def head(self) -> nn.Module:
        """Return the 1x1 convolution, the pooling and the classifier."""
        last = self.config.stage_channels[-1]
        return nn.Sequential(
            ConvBNReLU(last, self.config.head_channels, 1), Classifier(self.config.head_channels, self.num_classes)
        )

    def option_names(self, position: int) -> tuple[str, ...]:
        """Return the three blocks, the same everywhere."""
        return OPERATIONS

    def make_option(self, position: int, choice: int) -> nn.Module:
        """Return the block of one choice: 0 identity, 1 expansion 3 kernel 3, 2 expansion 6 kernel 5."""
        in_channels, out_channels, stride = self.positions[position]
        if choice == 0:
            return ProjectedIdentity(in_channels, out_channels, stride)
        kernel_size, expansion = {1: (3, 3), 2: (5, 6)}[choice]
        return InvertedResidual(in_channels, out_channels, kernel_size, stride, expansion)
