"""The stages of networks of all kinds, their features, and their pairing."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import torchvision.models
from torch import nn

from dfnas_ray.algorithms.feature_stages import find_stages, forward_with_features, pair_stages
from dfnas_ray.ops.blocks import Classifier, ConvBNReLU, InvertedResidual
from dfnas_ray.teachers.cifar_resnet import resnet20
from dfnas_ray.teachers.digits import DigitsCNN


def found(network, shape=(3, 32, 32)):
    return [(stage.module, *stage.size) for stage in find_stages(network, shape)]


def num_hooks(network):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules())


class SharedPool(nn.Module):
    """Uses one activation three times, and halves the size between its modules."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1)
        self.activation = nn.ReLU()

    def forward(self, x):
        x = self.activation(self.second(self.activation(self.first(x))))
        return self.activation(F.max_pool2d(x, 2)).mean((2, 3))


def test_the_stages_of_residual_networks_are_the_papers():
    assert found(resnet20()) == [("layer1", 32, 32), ("layer2", 16, 16), ("layer3", 8, 8)]
    assert found(torchvision.models.resnet18(), (3, 64, 64)) == [
        ("relu", 32, 32),
        ("layer1", 16, 16),
        ("layer2", 8, 8),
        ("layer3", 4, 4),
        ("layer4", 2, 2),
    ]


def test_what_a_strided_block_computes_before_its_stride_is_no_stage():
    network = nn.Sequential(ConvBNReLU(3, 4, 3), InvertedResidual(4, 8, 3, stride=2, expansion=3), Classifier(8, 10))
    assert found(network) == [("0", 32, 32), ("1", 16, 16)]


def test_stages_within_one_container_are_found():
    assert found(DigitsCNN(4), (1, 16, 16)) == [("features.0", 16, 16), ("features.2", 8, 8), ("features", 4, 4)]
    two_sizes = nn.Sequential(nn.Sequential(ConvBNReLU(3, 4, 3), ConvBNReLU(4, 4, 3, stride=2)), Classifier(4, 10))
    assert found(two_sizes) == [("0.0", 32, 32), ("0", 16, 16)]


def test_of_a_module_that_is_used_several_times_the_right_call_is_taken():
    network = SharedPool()
    stages = find_stages(network, (1, 8, 8))
    assert [tuple(stage) for stage in stages] == [("activation", 1, (8, 8)), ("activation", 2, (4, 4))]
    images = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    logits, (large, small) = forward_with_features(network, stages, images)
    assert torch.equal(F.max_pool2d(large, 2), small)
    assert torch.equal(logits, small.mean((2, 3)))


def test_a_network_without_feature_maps_has_no_stages():
    assert found(nn.Sequential(nn.Flatten(), nn.Linear(12, 10)), (3, 2, 2)) == []


def test_features_are_those_of_the_forward_pass_and_carry_gradients():
    network, images = DigitsCNN(4), torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    _, features = forward_with_features(network, find_stages(network, (1, 16, 16)), images)
    assert [tuple(f.shape) for f in features] == [(2, 4, 16, 16), (2, 8, 8, 8), (2, 16, 4, 4)]
    features[1].sum().backward()
    assert network.features[2][0].weight.grad is not None
    assert network.features[3][0].weight.grad is None


def test_no_hook_stays_and_nothing_else_changes():
    network = DigitsCNN(4).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    stages = find_stages(network, (1, 16, 16))
    assert network.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    forward_with_features(network, stages, torch.zeros(2, 1, 16, 16))
    with pytest.raises(RuntimeError):
        forward_with_features(network, stages, torch.zeros(2, 5, 16, 16))
    assert num_hooks(network) == 0


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([32, 16, 8], [32, 16, 8], [(0, 0), (1, 1), (2, 2)]),
        ([32, 16, 8], [32, 16, 8, 4], [(0, 0), (1, 1), (2, 3)]),  # the last ones feed the classifiers
        ([32, 16, 8, 4, 2], [16, 4], [(1, 0), (4, 1)]),
        ([8], [32, 16], [(0, 1)]),
        ([33, 17], [32, 16], [(0, 0), (1, 1)]),
        ([], [32], []),
    ],
)
def test_stages_are_paired_in_order_by_size_and_last_with_last(first, second, expected):
    first, second = ([(side, side) for side in sides] for sides in (first, second))
    assert pair_stages(first, second) == expected
    assert pair_stages(second, first) == [(b, a) for a, b in expected]
