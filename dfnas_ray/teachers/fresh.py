"""An untrained network like the teacher."""

from __future__ import annotations

from collections.abc import Callable

import torch
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
        kind = type(module).__name__
        layer = f"its layer {name or kind} ({kind})"
        if [*module.parameters(recurse=False)] and _reset_of(module) is None:
            return f"{layer} has weights and no reset_parameters() to draw them anew"
        statistics = {"running_mean", "running_var"} & {key for key, _ in module.named_buffers(recurse=False)}
        if statistics and _reset_of(module) is None:
            return f"{layer} has statistics of its training and no reset_parameters() to forget them"
        if kept := _kept_at_reset(module):
            return f"{layer} computes its weight from {kept}, which its reset_parameters() does not draw anew"
    return ""


def _kept_at_reset(module: nn.Module) -> str:
    """Return the name of a parameter that a layer's reset leaves as it is; empty if there is none.

    Such are those of `torch.nn.utils.weight_norm`, `spectral_norm` and `prune`: the layer's own weight is computed from them.
    Constants, as in BatchNorm, may be what the reset gives.
    """
    own = {name: parameter for name, parameter in module.named_parameters(recurse=False) if parameter.numel()}
    learned = [name for name, parameter in own.items() if bool((parameter != parameter.flatten()[0]).any())]
    is_plain = type(module).__module__.startswith("torch.nn.modules") and "weight" in own
    if not learned or is_plain:
        return ""
    copied = copy_network(module)
    reset = _reset_of(copied)
    assert reset is not None
    with torch.random.fork_rng(devices=[]):
        reset()
    drawn = dict(copied.named_parameters(recurse=False))
    return next((name for name in learned if torch.equal(drawn[name], own[name])), "")


def _reset_of(module: nn.Module) -> Callable[[], object] | None:
    """Return the method that draws a layer's weights anew; in torch's attention its name is private."""
    for name in ("reset_parameters", "_reset_parameters"):
        if callable(reset := getattr(module, name, None)):
            return reset
    return None
