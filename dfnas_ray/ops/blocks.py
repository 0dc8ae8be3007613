"""Convolution blocks of the mobile search spaces. Shapes: (B, C, H, W)."""

from __future__ import annotations

from torch import Tensor, nn


class ConvBNReLU(nn.Sequential):
    """Convolution without bias, BatchNorm, ReLU; padded so that stride 1 keeps the size."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1):
        super().__init__(
            nn.Conv2d(
                in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, groups=groups, bias=False
            ),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class ProjectedIdentity(nn.Sequential):
    """Skip a layer: nothing where the shape stays, else a strided 1x1 convolution with BatchNorm."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        if stride == 1 and in_channels == out_channels:
            super().__init__()
        else:
            super().__init__(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )


class InvertedResidual(nn.Module):
    """MobileNetV2 block: expand 1x1, depthwise, project 1x1, and a shortcut where the shapes agree.

    Source: Sandler et al. 2018, arXiv:1801.04381. The activation is ReLU, as NAS-Bench-Macro uses it.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, expansion: int):
        super().__init__()
        hidden = in_channels * expansion
        self.has_shortcut = stride == 1 and in_channels == out_channels
        self.expand = ConvBNReLU(in_channels, hidden, 1)
        self.depthwise = ConvBNReLU(hidden, hidden, kernel_size, stride, groups=hidden)
        self.project = nn.Sequential(
            nn.Conv2d(hidden, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H / stride, W / stride)."""
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.has_shortcut else y
