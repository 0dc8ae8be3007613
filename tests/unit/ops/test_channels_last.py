"""Strided 1 x 1 convolutions of few channels: oneDNN writes past its memory in their gradient, in channels_last, on a CPU."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from dfnas_ray.ops.networks import SubsampledConv2d, channels_last

LARGE = """
import torch
from torch import nn
from dfnas_ray.ops.networks import channels_last

torch.set_num_threads(1)
network = channels_last(nn.Conv2d(4, 8, 1, 2, bias=False))
for _ in range(8):
    images = torch.randn(7, 4, 160, 160).contiguous(memory_format=torch.channels_last)
    network(images).square().sum().backward()
print("alive")
"""


@pytest.mark.parametrize(("channels", "groups"), [(4, 1), (15, 1), (32, 4)])
def test_outputs_and_gradients_are_those_of_the_convolution(channels, groups):
    torch.manual_seed(0)
    plain = nn.Conv2d(channels, 8, 1, (2, 3), groups=groups)
    network = nn.Conv2d(channels, 8, 1, (2, 3), groups=groups)
    network.load_state_dict(plain.state_dict())
    assert type(channels_last(network)) is SubsampledConv2d
    images = torch.randn(5, channels, 9, 10)
    first, second = plain(images), network(images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(second, first)
    for one in (first, second):
        one.square().sum().backward()
    torch.testing.assert_close(network.weight.grad, plain.weight.grad)
    torch.testing.assert_close(network.bias.grad, plain.bias.grad)


@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv2d(16, 32, 1, 2),
        nn.Conv2d(4, 8, 1, 1),
        nn.Conv2d(4, 8, 3, 2, 1),
        nn.Conv2d(4, 8, 1, 2, padding=1),
    ],
    ids=["many-channels", "no-stride", "larger", "padded"],
)
def test_other_convolutions_stay_what_they_are(convolution):
    assert type(channels_last(convolution)) is nn.Conv2d


def test_large_images_do_not_end_the_process():
    done = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True, check=False)
    assert done.stdout == "alive\n", done.stderr
