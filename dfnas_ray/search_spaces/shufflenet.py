"""The space of SPOS: a chain of ShuffleNetV2 units with different kernel sizes, or Xception units.

Source: Guo et al. 2020, arXiv:1904.00420, Sec. 4 and Table 1.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator
from torch import nn

from dfnas_ray.limits import WIDE
from dfnas_ray.ops.blocks import Classifier, ConvBNReLU, ShuffleBlock, XceptionBlock
from dfnas_ray.search_spaces.base import SpaceConfig
from dfnas_ray.search_spaces.chain import ChainSpace, StageChannels, StageLayers, stage_positions

OPERATIONS = ("shuffle 3x3", "shuffle 5x5", "shuffle 7x7", "xception")  # by digit of the genotype


class ShuffleNetConfig(SpaceConfig):
    """A chain of ShuffleNetV2 choice blocks; the defaults are the paper's."""

    kind: Literal["shufflenet"] = "shufflenet"
    form: Literal["imagenet", "cifar"] = Field(
        "imagenet",
        description="imagenet: first convolution with stride 2, for 224 pixels; cifar: stride 1, for 32 pixels.",
    )
    stem_channels: int = Field(
        16, gt=0, le=WIDE, multiple_of=2, description="Output channels of the first convolution."
    )
    stage_layers: tuple[StageLayers, ...] = Field((4, 4, 8, 4), min_length=1, description="Choice blocks per stage.")
    stage_channels: tuple[StageChannels, ...] = Field(
        (64, 160, 320, 640), min_length=1, description="Channels per stage: even, and more than in the previous stage."
    )
    head_channels: int = Field(1024, gt=0, le=WIDE, description="Channels before pooling.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.stage_layers) != len(self.stage_channels) or min(self.stage_layers) < 1:
            raise ValueError(
                f"stage_layers {self.stage_layers} and stage_channels {self.stage_channels} must have one positive number "
                "per stage."
            )
        widths = (self.stem_channels, *self.stage_channels)
        if any(width % 2 for width in widths) or list(widths) != sorted(set(widths)):
            raise ValueError(
                f"stem_channels and stage_channels {widths} must be even and grow from stage to stage, because a unit with "
                "stride 2 adds channels to those of its input."
            )
        return self

    def space(self, image_shape: tuple[int, int, int], num_classes: int) -> ShuffleNet:
        """Return the space for one input shape and number of classes."""
        return ShuffleNet(self, image_shape, num_classes)


class ShuffleNet(ChainSpace):
    """Digit strings: 0, 1, 2 for a unit with kernel 3, 5, 7, and 3 for Xception.

    The supernet's BatchNorms have no scale and shift.
    """

    kind = "shufflenet"
    has_affine_supernet = False

    def __init__(self, config: ShuffleNetConfig, image_shape: tuple[int, int, int], num_classes: int):
        self.config = config
        strides = (2,) * len(config.stage_layers)
        positions = stage_positions(config.stem_channels, config.stage_layers, config.stage_channels, strides)
        super().__init__(positions, image_shape, num_classes)

    def stem(self) -> nn.Module:
        """Return the first convolution."""
        stride = 2 if self.config.form == "imagenet" else 1
        return ConvBNReLU(self.image_shape[0], self.config.stem_channels, 3, stride)

    def head(self) -> nn.Module:
        """Return the 1x1 convolution, pooling and a classifier without bias."""
        last, channels = self.config.stage_channels[-1], self.config.head_channels
        return nn.Sequential(ConvBNReLU(last, channels, 1), Classifier(channels, self.num_classes, bias=False))

    def option_names(self, position: int) -> tuple[str, ...]:
        """Return the four blocks, the same everywhere."""
        return OPERATIONS

    def make_option(self, position: int, choice: int) -> nn.Module:
        """Return the block of one choice."""
        in_channels, out_channels, stride = self.positions[position]
        if choice == len(OPERATIONS) - 1:
            return XceptionBlock(in_channels, out_channels, stride)
        return ShuffleBlock(in_channels, out_channels, 3 + 2 * choice, stride)
