"""Convolution blocks of the chain search spaces. Shapes: (B, C, H, W)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dfnas_ray.ops.precision import DepthwiseConv2d


class ConvBN(nn.Sequential):
    """Convolution without bias, and BatchNorm; padded so that stride 1 keeps the size."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1):
        if groups == in_channels == out_channels and groups > 1:
            convolution: nn.Conv2d = DepthwiseConv2d(in_channels, kernel_size, stride)
        else:
            padding = kernel_size // 2
            convolution = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(out_channels))


class ConvBNReLU(nn.Sequential):
    """Convolution without bias, BatchNorm, and an activation, by default ReLU."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        groups: int = 1,
        activation: type[nn.Module] = nn.ReLU,
    ):
        super().__init__(
            *ConvBN(in_channels, out_channels, kernel_size, stride, groups),
            activation(inplace=True),
        )


class ProjectedIdentity(nn.Sequential):
    """A skipped layer: the identity if the shape stays, else a strided 1x1 convolution with BatchNorm."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        if stride == 1 and in_channels == out_channels:
            super().__init__()
        else:
            super().__init__(*ConvBN(in_channels, out_channels, 1, stride))


class InvertedResidual(nn.Module):
    """MobileNetV2 block: expand 1x1, depthwise, project 1x1, and a shortcut if input and output have the same shape.

    Source: Sandler et al. 2018, arXiv:1801.04381. NAS-Bench-Macro uses it with ReLU, ProxylessNAS with ReLU6. With
    expansion 1 there is no first convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        expansion: int,
        activation: type[nn.Module] = nn.ReLU,
    ):
        super().__init__()
        hidden = in_channels * expansion
        self.has_shortcut = stride == 1 and in_channels == out_channels
        self.expand = ConvBNReLU(in_channels, hidden, 1, activation=activation) if expansion > 1 else nn.Sequential()
        self.depthwise = ConvBNReLU(hidden, hidden, kernel_size, stride, groups=hidden, activation=activation)
        self.project = ConvBN(hidden, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H / stride, W / stride)."""
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.has_shortcut else y


class ShuffleUnit(nn.Module):
    """ShuffleNetV2 unit with a given main branch: half of the channels pass, the other half is transformed.

    At stride 1, the even channels pass and the odd ones are transformed; this replaces the channel shuffle of the
    previous unit. At stride 2, both branches see all channels. Source: Ma et al. 2018, arXiv:1807.11164; Guo et al.
    2020, arXiv:1904.00420, Sec. 4.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, kernel_size: int, main: nn.Module):
        super().__init__()
        self.stride = stride
        self.main = main
        if stride > 1:
            self.pass_through = nn.Sequential(
                *ConvBN(in_channels, in_channels, kernel_size, stride, groups=in_channels),
                *ConvBNReLU(in_channels, in_channels, 1),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H / stride, W / stride)."""
        if self.stride == 1:
            return torch.cat((x[:, 0::2], self.main(x[:, 1::2])), dim=1)
        return torch.cat((self.pass_through(x), self.main(x)), dim=1)


def _shuffle_widths(in_channels: int, out_channels: int, stride: int) -> tuple[int, int, int]:
    """Return the main branch's input, middle and output channels."""
    passing = in_channels // 2 if stride == 1 else in_channels
    return in_channels - passing if stride == 1 else in_channels, out_channels // 2, out_channels - passing


class ShuffleBlock(ShuffleUnit):
    """A unit with 1x1, depthwise and 1x1 convolutions."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int):
        inner, middle, outer = _shuffle_widths(in_channels, out_channels, stride)
        main = nn.Sequential(
            *ConvBNReLU(inner, middle, 1),
            *ConvBN(middle, middle, kernel_size, stride, groups=middle),
            *ConvBNReLU(middle, outer, 1),
        )
        super().__init__(in_channels, out_channels, stride, kernel_size, main)


class XceptionBlock(ShuffleUnit):
    """A unit with three depthwise separable 3x3 convolutions."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        inner, middle, outer = _shuffle_widths(in_channels, out_channels, stride)
        main = nn.Sequential(
            *ConvBN(inner, inner, 3, stride, groups=inner),
            *ConvBNReLU(inner, middle, 1),
            *ConvBN(middle, middle, 3, groups=middle),
            *ConvBNReLU(middle, middle, 1),
            *ConvBN(middle, middle, 3, groups=middle),
            *ConvBNReLU(middle, outer, 1),
        )
        super().__init__(in_channels, out_channels, stride, 3, main)


class Classifier(nn.Module):
    """Global average pooling and a linear layer: (B, C, H, W) to logits (B, num_classes)."""

    def __init__(self, channels: int, num_classes: int, bias: bool = True):
        super().__init__()
        self.linear = nn.Linear(channels, num_classes, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.linear(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits
