"""BatchNorm layers whose weights and statistics are all buffers, as in detection networks, become BatchNorm2d."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dfnas_ray.ops.networks import copy_network
from dfnas_ray.surroundings import random_states, set_random_states

_BUFFERS = {"weight", "bias", "running_mean", "running_var"}
_EPS = 1e-5  # of layers that do not say theirs


def replace_frozen_batch_norms(model: nn.Module) -> None:
    """Replace layers such as `torchvision.ops.FrozenBatchNorm2d` by BatchNorm2d in evaluation mode, in place.

    Such a layer is recognised by its buffers and by what it computes, because an import of torchvision takes seconds. As a
    BatchNorm2d its statistics serve synthesis, and a fresh copy can be trained. Outputs are equal up to rounding.
    """
    found: dict[nn.Module, nn.Module] = {}
    for module in [*model.modules()]:
        for name, layer in module._modules.items():
            if layer is None or not _is_frozen_norm(layer):
                continue
            equal = found.get(layer) or _equal_norm(layer)
            if equal is not None:
                found[layer] = module._modules[name] = equal


def _is_frozen_norm(layer: nn.Module) -> bool:
    """Return whether a layer holds the four tensors of a BatchNorm as buffers, and nothing else that a copy would lack."""
    buffers = dict(layer.named_buffers())
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    return (
        not isinstance(layer, _BatchNorm)
        and buffers.keys() - {"num_batches_tracked"} == _BUFFERS
        and not [*layer.parameters()]
        and not [*layer.children()]
        and not any(hooks)
        and len({(buffers[name].shape, buffers[name].dtype) for name in _BUFFERS}) == 1
        and buffers["weight"].ndim == 1
        and buffers["weight"].is_floating_point()
    )


def _equal_norm(layer: Any) -> nn.BatchNorm2d | None:
    """Return the BatchNorm2d that computes what a layer computes; None if it computes something else."""
    channels = len(layer.weight)
    equal = nn.BatchNorm2d(channels, eps=float(getattr(layer, "eps", _EPS)))
    state = {name: getattr(layer, name) for name in _BUFFERS}
    equal.load_state_dict({**state, "num_batches_tracked": torch.tensor(0)})
    equal = equal.eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((2, channels, 3, 3), generator=generator, dtype=torch.float64)
    states = random_states()
    try:
        with torch.no_grad():
            found = copy_network(layer).double()(x.clone())  # rounding may be large in float32
            return equal if torch.allclose(found, copy_network(equal).double()(x), rtol=1e-4) else None
    except Exception:  # whatever such a layer raises
        return None
    finally:
        set_random_states(states)
