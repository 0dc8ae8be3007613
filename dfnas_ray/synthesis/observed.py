"""What a teacher computes on the way to its logits: the inputs of its BatchNorm layers, and its features."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dfnas_ray.synthesis.regularizers import BatchNormInput


class ObservedTeacher(nn.Module):
    """A private copy of the teacher that hands out the inputs of its BatchNorm layers.

    The user's model is left alone: no hook is ever put on it. Each call returns the logits and what the layers received
    during that call, in forward order.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.received: list[BatchNormInput] = []
        for module in self.model.modules():
            if isinstance(module, _BatchNorm) and module.track_running_stats:
                module.register_forward_pre_hook(self._receive)

    def _receive(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.received.append(BatchNormInput(inputs[0], module.running_mean, module.running_var))  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> tuple[Tensor, list[BatchNormInput]]:
        """Map (B, C, H, W) to logits (B, num_classes) and one entry per BatchNorm layer passed."""
        self.received.clear()
        logits = self.model(x)
        received = list(self.received)
        self.received.clear()
        return logits, received


class FeatureTap:
    """Keeps the input of the last linear layer, the usual feature vector of a classifier."""

    def __init__(self, model: nn.Module):
        linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
        self._taken: Tensor | None = None
        if linear:
            linear[-1].register_forward_pre_hook(lambda module, inputs: setattr(self, "_taken", inputs[0]))
        else:
            model.register_forward_hook(lambda module, inputs, output: setattr(self, "_taken", _logits(output)))

    def take(self) -> Tensor:
        """Return what the last forward pass left, (B, D)."""
        assert self._taken is not None
        return self._taken.flatten(1)


def _logits(output: Any) -> Any:
    """Return the logits of a network, or of an `ObservedTeacher`."""
    return output[0] if isinstance(output, tuple) else output
