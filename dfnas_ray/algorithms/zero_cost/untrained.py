"""The input of a training-free proxy: one candidate network before its first step, and a few batches."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from dfnas_ray.ops.cost import Cost
from dfnas_ray.training.batches import Batch


@dataclass(frozen=True)
class UntrainedNetwork:
    """A candidate as every proxy receives it. Proxies must not change the network's parameters.

    Attributes:
        network: Freshly initialised, in training mode.
        blocks: Its primary blocks, from input to output (`SearchSpace.blocks`).
        cost: Parameters and MACs.
        batches: Images (B, C, H, W) and the teacher's logits on them; the same for every candidate.
        probe: (B, C, H, W), the input for AZ-NAS: Gaussian noise, as published, or the first batch's images.
        image_shape: (C, H, W).
        generator: The random number generator of a proxy's draws; on the CPU, because devices draw differently.
    """

    network: nn.Module
    blocks: Sequence[nn.Module]
    cost: Cost
    batches: Sequence[Batch]
    probe: Tensor
    image_shape: tuple[int, int, int]
    generator: torch.Generator

    def lent(self) -> UntrainedNetwork:
        """Return a copy with its own network and images, for code from another package."""
        network, blocks = copy.deepcopy((self.network, self.blocks))
        batches = [Batch(*(tensor.clone() for tensor in batch)) for batch in self.batches]
        return replace(self, network=network, blocks=blocks, batches=batches, probe=self.probe.clone())


def initialize(network: nn.Module) -> None:
    """Draw all weights anew, normal with fan-in (He et al. 2015, arXiv:1502.01852); BatchNorms become the identity."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()


def weighted_layers(network: nn.Module) -> list[nn.Conv2d | nn.Linear]:
    """Return the convolutions and linear layers, in the order of ``network.modules()``."""
    return [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Switch BatchNorm to its running statistics while the block runs."""
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)
