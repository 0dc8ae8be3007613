"""Access to what a teacher computes before its logits: the inputs of its BatchNorm layers, and its features."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from dfnas_ray.ops.networks import copy_network, evaluation_mode, has_statistics
from dfnas_ray.synthesis.regularizers import BatchNormInput


class ObservedTeacher(nn.Module):
    """A private copy of the teacher that also returns the inputs of its BatchNorm layers.

    The user's model stays untouched: no hook is ever put on it. Each call returns the logits and what the layers
    received during that call, in forward order.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = evaluation_mode(copy_network(model))  # without gradients, as a teacher is
        self.received: list[BatchNormInput] = []
        for module in self.model.modules():
            if has_statistics(module):
                module.register_forward_pre_hook(self._receive)

    def _receive(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.received.append(BatchNormInput(inputs[0], module.running_mean, module.running_var))  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> tuple[Tensor, list[BatchNormInput]]:
        """Map (B, C, H, W) to logits (B, num_classes), and one entry for each call of a BatchNorm layer."""
        self.received.clear()
        logits = self.model(x)
        received = list(self.received)
        self.received.clear()
        return logits, received


class FeatureTap:
    """Keeps the input of the linear layer that is called last: the usual feature vector of a classifier.

    For a network without a linear layer, it keeps the logits.
    """

    def __init__(self, model: nn.Module):
        self._taken: Tensor | None = None
        model.register_forward_pre_hook(lambda module, inputs: setattr(self, "_taken", None))
        for module in model.modules():
            if isinstance(module, nn.Linear):  # also one that evaluation does not call, such as an auxiliary head's
                module.register_forward_pre_hook(lambda module, inputs: setattr(self, "_taken", inputs[0]))
        model.register_forward_hook(self._take_logits)

    def _take_logits(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if self._taken is None:
            self._taken = _logits(output)

    def take(self) -> Tensor:
        """Return the features of the last forward pass, (B, D)."""
        assert self._taken is not None
        return self._taken.flatten(1)


def _logits(output: Any) -> Any:
    """Return the logits of a network, or of an `ObservedTeacher`."""
    return output[0] if isinstance(output, tuple) else output
