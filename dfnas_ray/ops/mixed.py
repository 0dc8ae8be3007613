"""A place in a supernet where one of several operations, or a mixture of them, is applied."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn


class Mixture(NamedTuple):
    """A weighted sum of some of the options.

    Attributes:
        options: Which are computed; the others cost neither time nor memory.
        weights: One per computed option, (len(options),); gradients flow into them.
        constant: Options whose output counts as a constant: gradients reach their weight, but not what lies before.
    """

    options: tuple[int, ...]
    weights: Tensor
    constant: tuple[int, ...] = ()


Choice: TypeAlias = int | Mixture | None
"""One option, a mixture of several, or no connection at all."""


class MixedOperation(nn.Module):
    """The options of one place; all map the same shape to the same shape."""

    def __init__(self, options: Iterable[nn.Module]):
        super().__init__()
        self.options = nn.ModuleList(options)

    def forward(self, x: Tensor, choice: int | Mixture) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H', W')."""
        if isinstance(choice, int):
            output: Tensor = self.options[choice](x)
            return output
        terms = [
            weight * self._run(option, x, option in choice.constant)
            for option, weight in zip(choice.options, choice.weights.unbind(), strict=True)
        ]
        return torch.stack(terms).sum(0) if len(terms) > 2 else sum(terms[1:], start=terms[0])

    def _run(self, option: int, x: Tensor, constant: bool) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not constant):
            output: Tensor = self.options[option](x)
        return output


def remove_affine(network: nn.Module) -> nn.Module:
    """Take scale and shift from every BatchNorm, as supernets do whose paths would fight over them; returns ``network``."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.affine = False
            module.register_parameter("weight", None)
            module.register_parameter("bias", None)
    return network
