"""The ProxylessNAS space: a chain of inverted residuals with a choice of kernel and expansion; some may be skipped.

Source: Cai et al. 2019, arXiv:1812.00332, Sec. 4. The published system searches at 224x224. The form for small images
has the same chain, but halves the size less often.
"""

from __future__ import annotations

from itertools import product
from typing import Literal, Self

from pydantic import Field, model_validator
from torch import nn

from dfnas_ray.limits import WIDE
from dfnas_ray.ops.blocks import Classifier, ConvBNReLU, InvertedResidual
from dfnas_ray.search_spaces.base import SpaceConfig
from dfnas_ray.search_spaces.chain import ChainSpace, Position, StageChannels, StageLayers, stage_positions

KERNELS_AND_EXPANSIONS = tuple(product((3, 5, 7), (3, 6)))  # by digit of the genotype; 6 is the skip
_NAMES = tuple(f"MB{expansion} {kernel}x{kernel}" for kernel, expansion in KERNELS_AND_EXPANSIONS)
_STRIDES = {"imagenet": (2, (2, 2, 2, 1, 2, 1)), "cifar": (1, (1, 2, 2, 1, 2, 1))}  # of the stem, of the stages


class ProxylessSpaceConfig(SpaceConfig):
    """A chain of MBConv layers with kernel 3, 5 or 7 and expansion 3 or 6, or skipped; the defaults are the paper's."""

    kind: Literal["proxyless"] = "proxyless"
    form: Literal["imagenet", "cifar"] = Field(
        "imagenet",
        description="imagenet: strides for 224 pixels (in total 32); cifar: strides for 32 pixels (in total 8).",
    )
    stem_channels: int = Field(32, gt=0, le=WIDE, description="Output channels of the first convolution.")
    first_channels: int = Field(
        16, gt=0, le=WIDE, description="Output channels of the first block, which is not searched."
    )
    stage_layers: tuple[StageLayers, ...] = Field(
        (4, 4, 4, 4, 4, 1), min_length=1, description="Searched layers per stage."
    )
    stage_channels: tuple[StageChannels, ...] = Field(
        (32, 40, 80, 96, 192, 320), min_length=1, description="Channels per stage."
    )
    stage_strides: tuple[Literal[1, 2], ...] | None = Field(
        None, description="Stride of each stage's first layer; by default the form's."
    )
    head_channels: int = Field(1280, gt=0, le=WIDE, description="Channels before pooling.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        strides = self.strides
        if not len(self.stage_layers) == len(self.stage_channels) == len(strides):
            raise ValueError(
                f"stage_layers {self.stage_layers}, stage_channels {self.stage_channels} and stage_strides {strides} "
                "must have one number per stage. To change the number of stages, set all three."
            )
        if min(self.stage_layers + self.stage_channels) < 1:
            raise ValueError(
                f"stage_layers {self.stage_layers} and stage_channels {self.stage_channels} must be positive."
            )
        return self

    @property
    def strides(self) -> tuple[int, ...]:
        """The strides of the stages."""
        return self.stage_strides or _STRIDES[self.form][1]

    @property
    def stem_stride(self) -> int:
        """The stride of the first convolution."""
        return _STRIDES[self.form][0]

    def space(self, image_shape: tuple[int, int, int], num_classes: int) -> ProxylessSpace:
        """Return the space for one input shape and number of classes."""
        return ProxylessSpace(self, image_shape, num_classes)


class ProxylessSpace(ChainSpace):
    """Digit strings: 0 to 5 for (kernel, expansion) = (3, 3), (3, 6), (5, 3), (5, 6), (7, 3), (7, 6), and 6 for a skip."""

    kind = "proxyless"
    stem_name = "conv 3x3, MB1 3x3"

    def __init__(self, config: ProxylessSpaceConfig, image_shape: tuple[int, int, int], num_classes: int):
        self.config = config
        positions = stage_positions(config.first_channels, config.stage_layers, config.stage_channels, config.strides)
        super().__init__(positions, image_shape, num_classes)

    def stem(self) -> nn.Module:
        """Return the first convolution and the block that is not searched."""
        config = self.config
        return nn.Sequential(
            ConvBNReLU(self.image_shape[0], config.stem_channels, 3, config.stem_stride, activation=nn.ReLU6),
            InvertedResidual(config.stem_channels, config.first_channels, 3, 1, 1, nn.ReLU6),
        )

    def head(self) -> nn.Module:
        """Return the 1x1 convolution, the pooling and the classifier."""
        last, channels = self.config.stage_channels[-1], self.config.head_channels
        return nn.Sequential(ConvBNReLU(last, channels, 1, activation=nn.ReLU6), Classifier(channels, self.num_classes))

    def option_names(self, position: int) -> tuple[str, ...]:
        """Return the six blocks, and the skip where a layer keeps the shape."""
        return (*_NAMES, "skip") if _keeps_shape(self.positions[position]) else _NAMES

    def make_option(self, position: int, choice: int) -> nn.Module:
        """Return the block of one choice. A skipped layer is only the shortcut, an identity."""
        if choice == len(KERNELS_AND_EXPANSIONS):
            return nn.Identity()
        in_channels, out_channels, stride = self.positions[position]
        kernel_size, expansion = KERNELS_AND_EXPANSIONS[choice]
        return InvertedResidual(in_channels, out_channels, kernel_size, stride, expansion, nn.ReLU6)


def _keeps_shape(position: Position) -> bool:
    return position.stride == 1 and position.in_channels == position.out_channels
