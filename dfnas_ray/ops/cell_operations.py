"""Operations on the edges of cells. Shapes: (B, C, H, W).

Each operation with weights begins with ReLU, because the nodes of a cell are sums without an activation.
Sources: Liu et al. 2019, arXiv:1806.09055 (separable and dilated convolutions, factorised reduction); Dong & Yang 2020,
arXiv:2001.00326 (ReLU-Conv-BN).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfnas_ray.ops.precision import DepthwiseConv2d


class Zero(nn.Module):
    """No connection: zeros of the strided shape."""

    def __init__(self, stride: int = 1):
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Return zeros (B, C, H / stride, W / stride)."""
        return torch.zeros_like(x[..., :: self.stride, :: self.stride])


class ReLUConvBN(nn.Sequential):
    """ReLU, convolution without bias, BatchNorm."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1):
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False),
            nn.BatchNorm2d(out_channels),
        )


class SeparableConv(nn.Sequential):
    """Two depthwise separable convolutions in a row; the first one has the stride."""

    def __init__(self, channels: int, kernel_size: int, stride: int):
        super().__init__(*_separable(channels, kernel_size, stride, 1), *_separable(channels, kernel_size, 1, 1))


class DilatedConv(nn.Sequential):
    """One depthwise separable convolution with dilation 2."""

    def __init__(self, channels: int, kernel_size: int, stride: int):
        super().__init__(*_separable(channels, kernel_size, stride, 2))


def _separable(channels: int, kernel_size: int, stride: int, dilation: int) -> list[nn.Module]:
    depthwise = DepthwiseConv2d(channels, kernel_size, stride, dilation)
    return [nn.ReLU(), depthwise, nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels)]


class FactorizedReduce(nn.Module):
    """Halves the size with two strided 1x1 convolutions; the second one uses pixels that the first one skips."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.relu = nn.ReLU()
        self.first = nn.Conv2d(in_channels, out_channels // 2, 1, stride=2, bias=False)
        self.second = nn.Conv2d(in_channels, out_channels - out_channels // 2, 1, stride=2, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, ceil(H / 2), ceil(W / 2))."""
        x = self.relu(x)
        height, width = x.shape[-2:]
        shifted = F.pad(x[..., 1:, 1:], (0, width % 2, 0, height % 2))  # padded so that an odd size rounds up here too
        return self.bn(torch.cat((self.first(x), self.second(shifted)), dim=1))


def average_pool(stride: int = 1) -> nn.Module:
    """Return 3x3 average pooling that does not count the padding."""
    return nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)


def max_pool(stride: int = 1) -> nn.Module:
    """Return 3x3 max pooling."""
    return nn.MaxPool2d(3, stride, padding=1)
