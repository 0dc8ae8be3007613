"""An untrained network like the teacher."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from dfnas_ray.ops.networks import copy_network, training_mode


def fresh_copy(model: nn.Module) -> nn.Module:
    """Return a copy with newly drawn weights, in training mode. `why_not_fresh` says whether this is possible."""
    fresh = training_mode(copy_network(model)).requires_grad_(True)
    for module in fresh.modules():
        if (reset := _reset_of(module)) is not None:
            reset()
    return fresh


def why_not_fresh(model: nn.Module) -> str:
    """Return why a fresh copy would keep weights that the model has learned; empty if it would not."""
    for name, module in model.named_modules():
        if [*module.parameters(recurse=False)] and _reset_of(module) is None:
            kind = type(module).__name__
            return f"its layer {name or kind} ({kind}) has weights and no reset_parameters() to draw them anew"
    return ""


def _reset_of(module: nn.Module) -> Callable[[], object] | None:
    """Return the method that draws a layer's weights anew; in torch's attention its name is private."""
    for name in ("reset_parameters", "_reset_parameters"):
        if callable(reset := getattr(module, name, None)):
            return reset
    return None
