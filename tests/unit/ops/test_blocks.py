"""Convolution blocks."""

import pytest
import torch
from torch import nn

from dfnas_ray.ops.blocks import ConvBNReLU, InvertedResidual, ProjectedIdentity


@pytest.mark.parametrize("kernel_size", [1, 3, 5, 7])
def test_conv_bn_relu_keeps_the_size_at_stride_1_and_halves_it_at_stride_2(kernel_size):
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert ConvBNReLU(3, 6, kernel_size)(x).shape == (2, 6, 8, 8)
    y = ConvBNReLU(3, 6, kernel_size, stride=2)(x)
    assert y.shape == (2, 6, 4, 4)
    assert y.min() == 0  # the activation is last


def test_projected_identity_is_the_identity_where_the_shape_stays():
    x = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    same = ProjectedIdentity(4, 4, stride=1)
    assert torch.equal(same(x), x)
    assert list(same.parameters()) == []


@pytest.mark.parametrize(("out_channels", "stride", "size"), [(4, 2, 3), (6, 1, 6)])
def test_projected_identity_is_a_1x1_convolution_where_the_shape_changes(out_channels, stride, size):
    block = ProjectedIdentity(4, out_channels, stride)
    assert block(torch.zeros(2, 4, 6, 6)).shape == (2, out_channels, size, size)
    assert sum(p.numel() for p in block.parameters()) == 4 * out_channels + 2 * out_channels


def _silence(block: InvertedResidual) -> InvertedResidual:
    nn.init.zeros_(block.project[1].weight)  # BatchNorm's scale: the branch returns 0
    return block.eval()


def test_inverted_residual_adds_its_input_where_the_shapes_agree():
    x = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(_silence(InvertedResidual(4, 4, 3, stride=1, expansion=3))(x), x)


@pytest.mark.parametrize(("out_channels", "stride"), [(4, 2), (8, 1)])
def test_inverted_residual_has_no_shortcut_where_the_shape_changes(out_channels, stride):
    x = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    assert _silence(InvertedResidual(4, out_channels, 3, stride, expansion=3))(x).abs().max() == 0


def test_inverted_residual_ends_without_activation():
    torch.manual_seed(0)
    block = InvertedResidual(4, 8, 3, stride=1, expansion=2)
    assert block(torch.randn(4, 4, 6, 6)).min() < 0
