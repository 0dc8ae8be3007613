"""The cost of a network: its parameters, and its multiply-accumulate operations (MACs) for one image.

MACs are half of what `torch.utils.flop_counter.FlopCounterMode` counts, for convolutions and matrix products.
Additions, normalisation and activations are not counted, as is usual in the field.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dfnas_ray.ops.networks import copy_network, evaluation_mode

M = TypeVar("M", bound=nn.Module)


class Cost(NamedTuple):
    """Parameters and MACs for one image. The costs of the parts of a network can be added."""

    params: int
    macs: int

    def __add__(self, other: object) -> Cost:  # a tuple's own + would concatenate
        if not isinstance(other, Cost):
            return NotImplemented
        return Cost(self.params + other.params, self.macs + other.macs)


def make_without_memory(make: Callable[[], M]) -> M:
    """Return a module on the meta device: its tensors have shapes but no values, and need no memory.

    A module that reads values while it is made is made normally instead.
    """
    try:
        with torch.device("meta"):
            return make()
    except (NotImplementedError, RuntimeError):
        return make()


def measure_cost(module: nn.Module, input_shape: tuple[int, ...], device: str = "meta") -> Cost:
    """Return the parameters and MACs of ``module`` for one input of ``input_shape`` = (C, H, W).

    Nothing is computed: a copy of the module runs on torch's meta device, so this takes milliseconds at any size. A module
    that reads the values of its tensors needs another ``device``.
    """
    return trace_cost(copy_network(module), input_shape, device)[0]


def trace_cost(module: nn.Module, input_shape: tuple[int, ...], device: str = "meta") -> tuple[Cost, tuple[int, ...]]:
    """Return the cost of a module as `measure_cost` does, and the output's shape without the batch dimension.

    The module itself runs: it is on ``device`` and in evaluation mode afterwards.
    """
    params = sum(p.numel() for p in module.parameters())
    probe = evaluation_mode(module.to(device))
    for images in (1, 2):
        try:
            with torch.no_grad(), FlopCounterMode(display=False) as counter:
                output = probe(torch.zeros(images, *input_shape, device=device))
        except Exception:  # some do not accept a single image, such as BatchNorm without running statistics
            if images == 2:
                raise
        else:
            break
    return Cost(params, counter.get_total_flops() // (2 * images)), tuple(output.shape[1:])
