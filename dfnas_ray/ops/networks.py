"""Helpers for networks written by others: copying, switching to evaluation mode, finding the device."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, TypeGuard, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

M = TypeVar("M", bound=nn.Module)

_MAX_DEPTH = 4  # of lists and mappings in attributes
_VECTOR = 16  # float32 numbers in the widest vector register


def evaluation_mode(network: M) -> M:
    """Put every part of a network into evaluation mode, whatever its own ``train()`` does; return the network."""
    network.eval()
    for part in network.modules():
        part.training = False
    return network


def training_mode(network: M) -> M:
    """Put a network into training mode with its own ``train()``, and return the network."""
    network.train()
    return network


def copy_network(network: M) -> M:
    """Return a copy of a network.

    Torch does not copy tensors that were computed with a gradient. Networks may keep such tensors, for example stored
    features, or weights computed by ``weight_norm``. These are copied without their history.

    Raises:
        Exception: an attribute cannot be copied; it may raise any error.
    """
    memo: dict[int, Any] = {}
    for part in network.modules():
        for value in vars(part).values():
            memo.update({id(tensor): tensor.detach().clone() for tensor in _computed(value)})
    return copy.deepcopy(network, memo)


class SubsampledConv2d(nn.Conv2d):
    """A strided 1 x 1 convolution that leaves pixels out before it, not while it computes. The result is the same.

    On CPUs, oneDNN writes past its memory in the gradient of such weights in channels_last, if a group has fewer input channels
    than a vector register: crashes, or wrong gradients (uxlfoundation/oneDNN#6035).
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        down, across = self.stride
        kept = input[..., ::down, ::across]
        return F.conv2d(kept, weight, bias, 1, 0, 1, self.groups)


def channels_last(network: M) -> M:
    """Convert a network to channels_last, in place, so that its weights can be trained on a CPU; return it."""
    for part in network.modules():
        if type(part) is nn.Conv2d and _overruns(part):
            part.__class__ = SubsampledConv2d
    return network.to(memory_format=torch.channels_last)


def _overruns(convolution: nn.Conv2d) -> bool:
    return (
        convolution.kernel_size == (1, 1)
        and max(convolution.stride) > 1
        and convolution.padding in ((0, 0), "valid")
        and convolution.in_channels // convolution.groups < _VECTOR
    )


def unwrapped(network: nn.Module) -> nn.Module:
    """Return a network without wrappers: torch.compile, data parallelism, averaging."""
    while True:
        if isinstance(network, nn.DataParallel | DistributedDataParallel | AveragedModel):
            network = network.module
        elif isinstance(inner := getattr(network, "_orig_mod", None), nn.Module):  # torch.compile's
            network = inner
        else:
            return network


def device_of(network: nn.Module) -> torch.device:
    """Return the device of a network; the CPU if it has no tensors."""
    return next(chain(network.parameters(), network.buffers()), torch.empty(0)).device


def has_statistics(module: nn.Module) -> TypeGuard[_BatchNorm]:
    """Return whether a module is a BatchNorm with running statistics."""
    return isinstance(module, _BatchNorm) and module.running_mean is not None and module.running_var is not None


def _computed(value: Any, depth: int = 0) -> Iterator[Tensor]:
    """Yield the tensors in an attribute that were computed with a gradient."""
    if isinstance(value, Tensor):
        if not value.is_leaf:
            yield value
    elif depth < _MAX_DEPTH and isinstance(value, Mapping | list | tuple):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _computed(each, depth + 1)
