"""Chains of plain convolutions: each layer is skipped, or has one of three kernels.

`ChainSpace` derives supernet, costs, notation and drawings from four methods.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from dfnas_ray.ops.blocks import Classifier, ConvBN, ConvBNReLU, ProjectedIdentity
from dfnas_ray.search_spaces import SpaceConfig
from dfnas_ray.search_spaces.chain import ChainSpace, stage_positions

KERNELS = {"conv 1x1": 1, "conv 3x3": 3, "conv 5x5": 5}
OPERATIONS = ("identity", *KERNELS)  # by digit of the genotype


class PlainChainConfig(SpaceConfig):
    """Stages of plain residual convolutions; the first layer of each stage halves the size and doubles the channels."""

    kind: Literal["plain_chain"] = "plain_chain"
    channels: int = Field(8, gt=0, description="Output channels of the first convolution.")
    stages: int = Field(2, gt=0, description="How often the size is halved.")
    layers: int = Field(2, gt=0, description="Layers per stage.")

    def space(self, image_shape: tuple[int, int, int], num_classes: int) -> PlainChain:
        """Return the space for one input shape and number of classes."""
        return PlainChain(self, image_shape, num_classes)


class PlainChain(ChainSpace):
    """Digit strings such as ``0213``: one digit per layer."""

    kind = "plain_chain"
    head_name = "pool, linear"

    def __init__(self, config: PlainChainConfig, image_shape: tuple[int, int, int], num_classes: int):
        self.config = config
        channels = [config.channels * 2**stage for stage in range(1, config.stages + 1)]
        layers, strides = [config.layers] * config.stages, [2] * config.stages
        super().__init__(stage_positions(config.channels, layers, channels, strides), image_shape, num_classes)

    def stem(self) -> nn.Module:
        """Return the first convolution."""
        return ConvBNReLU(self.image_shape[0], self.config.channels, 3)

    def head(self) -> nn.Module:
        """Return pooling and classifier."""
        return Classifier(self.positions[-1].out_channels, self.num_classes)

    def option_names(self, position: int) -> tuple[str, ...]:
        """Return the operations, the same everywhere."""
        return OPERATIONS

    def make_option(self, position: int, choice: int) -> nn.Module:
        """Return the layer of one choice at one position."""
        in_channels, out_channels, stride = self.positions[position]
        if OPERATIONS[choice] == "identity":
            return ProjectedIdentity(in_channels, out_channels, stride)
        return PlainBlock(in_channels, out_channels, KERNELS[OPERATIONS[choice]], stride)


class PlainBlock(nn.Module):
    """Convolution, BatchNorm, ReLU, with a shortcut around them."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int):
        super().__init__()
        self.shortcut = ProjectedIdentity(in_channels, out_channels, stride)
        self.main = ConvBN(in_channels, out_channels, kernel_size, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H / stride, W / stride)."""
        y: Tensor = (self.shortcut(x) + self.main(x)).relu()
        return y
