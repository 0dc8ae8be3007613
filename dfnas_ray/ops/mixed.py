"""Mixed operations: places of a supernet where one of several operations, or a mixture of them, is applied."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

SKIP_NAMES = ("skip_connect", "identity", "skip")
"""Names of options that pass their input on unchanged."""


class Mixture(NamedTuple):
    """A weighted sum of some of the options.

    Attributes:
        options: The options that are computed; the others cost neither time nor memory.
        weights: One weight per computed option, (len(options),); gradients flow into them.
        constant: Options whose output is a constant: gradients reach their weight, but not the option or its input.
    """

    options: tuple[int, ...]
    weights: Tensor
    constant: tuple[int, ...] = ()


Choice: TypeAlias = int | Mixture | None
"""One option, a mixture of several, or no connection at all."""


class MixedOperation(nn.Module):
    """The options of one place of a supernet; all have the same input shape and the same output shape."""

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
    """Remove scale and shift from every BatchNorm, because the paths of a supernet would compete for them.

    Returns:
        The same network.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.affine = False
            module.register_parameter("weight", None)
            module.register_parameter("bias", None)
    return network
