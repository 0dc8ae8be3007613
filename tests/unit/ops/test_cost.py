"""Parameters and MACs, counted by hand."""

import pytest
import torch
from torch import nn

from dfnas_ray.ops.blocks import InvertedResidual
from dfnas_ray.ops.cost import Cost, measure_cost, trace_cost


def test_convolution_costs_the_hand_counted_amount():
    conv = nn.Conv2d(3, 8, 3, padding=1)
    # weights 8 * 3 * 3 * 3 = 216, biases 8; one MAC per weight and output pixel
    assert measure_cost(conv, (3, 5, 7)) == Cost(params=224, macs=216 * 5 * 7)


def test_strided_and_grouped_convolutions_cost_the_hand_counted_amount():
    strided = nn.Conv2d(4, 6, 1, stride=2, bias=False)
    assert measure_cost(strided, (4, 8, 8)) == Cost(24, 24 * 4 * 4)
    depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False)
    assert measure_cost(depthwise, (6, 4, 4)) == Cost(6 * 9, 6 * 9 * 4 * 4)


def test_linear_layer_costs_the_hand_counted_amount():
    assert measure_cost(nn.Linear(10, 4), (10,)) == Cost(params=44, macs=40)


def test_normalisation_activation_and_pooling_have_parameters_but_no_macs():
    module = nn.Sequential(nn.BatchNorm2d(5), nn.ReLU(), nn.AvgPool2d(2))
    assert measure_cost(module, (5, 4, 4)) == Cost(params=10, macs=0)


def test_inverted_residual_costs_the_hand_counted_amount():
    block = InvertedResidual(16, 32, kernel_size=5, stride=2, expansion=6)
    # expand 16 -> 96 at 8x8, depthwise 5x5 to 4x4, project 96 -> 32; each with a BatchNorm of 2 per channel
    params = (16 * 96 + 2 * 96) + (25 * 96 + 2 * 96) + (96 * 32 + 2 * 32)
    macs = 16 * 96 * 64 + 25 * 96 * 16 + 96 * 32 * 16
    assert params == 7_456
    assert measure_cost(block, (16, 8, 8)) == Cost(params, macs)


def test_trace_returns_the_output_shape_without_the_batch():
    block = InvertedResidual(16, 32, kernel_size=3, stride=2, expansion=2)
    assert trace_cost(block, (16, 9, 7))[1] == (32, 5, 4)


def test_costs_of_parts_add_up_to_the_whole():
    first, second = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 3, 1)
    whole = measure_cost(nn.Sequential(first, second), (2, 6, 6))
    assert sum([measure_cost(first, (2, 6, 6)), measure_cost(second, (4, 6, 6))], Cost(0, 0)) == whole


def test_a_cost_does_not_add_to_a_tuple():
    with pytest.raises(TypeError):
        Cost(1, 2) + (3, 4)  # noqa: RUF005


def test_measuring_leaves_the_module_alone():
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    measure_cost(module, (1, 8, 8))
    assert module.training
    for name, tensor in module.state_dict().items():
        assert tensor.device.type == "cpu"
        assert torch.equal(tensor, before[name])


def test_a_module_that_refuses_a_single_image_costs_as_much_as_any():
    class RefusesOne(nn.Conv2d):
        def forward(self, x):
            assert len(x) > 1
            return super().forward(x)

    assert measure_cost(RefusesOne(3, 8, 3, padding=1), (3, 5, 7)) == Cost(params=224, macs=216 * 5 * 7)
