"""A wrapper for networks that do not work with everything done here: it protects the network, or what is around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from dfnas_ray.surroundings import random_states, set_random_states, torch_settings_kept

Place = str | int | None
"""The place of one output among several: its name or its number; None if there is only one output."""


class Needs(NamedTuple):
    """The protection that a network was found to need.

    Attributes:
        inputs: Copies of its inputs, because it changes them in place.
        layout: Contiguous memory (B, C, H, W), for instance because it flattens with ``view``.
        float32: Float32, because it does not compute in a lower precision.
        buffers: Copies of its buffers, because it changes them even in evaluation mode.
        settings: Torch's global settings restored, because it changes them.
        random_states: The global random states restored, because it seeds them.
        answers: Copies of its outputs, because it overwrites its last output with each new one.
        place: The place of its logits among several outputs.
        companion: A copy beside a single image, because it refuses a batch of one, or answers it without the batch dimension.
    """

    inputs: bool = False
    layout: bool = False
    float32: bool = False
    buffers: bool = False
    settings: bool = False
    random_states: bool = False
    answers: bool = False
    place: Place = None
    companion: bool = False


class GuardedNetwork(nn.Module):
    """Calls a network with copies of its inputs, and with the protection that it was found to need.

    Args:
        model: The network, which maps (B, C, H, W) to logits, or to several outputs.
        needs: The protection that it needs.
    """

    def __init__(self, model: nn.Module, needs: Needs):
        super().__init__()
        self.model = model
        self.needs = needs
        self.training = model.training

    def forward(self, x: Tensor) -> Tensor:
        """Map a copy of (B, C, H, W) to logits."""
        needs = self.needs
        x = x.clone(memory_format=torch.contiguous_format if needs.layout else torch.preserve_format)
        states = random_states() if needs.random_states else None
        is_doubled = needs.companion and len(x) == 1 and not self.training
        x = torch.cat([x, x]) if is_doubled else x
        with (
            torch_settings_kept() if needs.settings else nullcontext(),
            torch.autocast(x.device.type, enabled=False) if needs.float32 else nullcontext(),
        ):
            x = x.float() if needs.float32 else x
            logits = logits_of(self._with_own_buffers(x) if needs.buffers else self.model(x), needs.place)
        if states is not None:
            set_random_states(states)
        logits = logits[:1] if is_doubled else logits
        return logits.clone() if needs.answers else logits

    def without_companion(self) -> GuardedNetwork:
        """Return the same network, called with a single image as it is."""
        return GuardedNetwork(self.model, self.needs._replace(companion=False))

    def _with_own_buffers(self, x: Tensor) -> Any:
        """Call the network with copies of its buffers. In training mode it changes its own buffers."""
        if self.training:
            return self.model(x)
        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        return torch.func.functional_call(self.model, buffers, (x,))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move or convert the network, also as part of another module, but keep the layout of its weights."""
        super()._apply(fn, recurse)
        if self.needs.layout:
            for tensor in (*self.parameters(), *self.buffers()):
                tensor.data = tensor.data.contiguous()
        return self


def logits_of(answer: Any, place: Place = None) -> Tensor:
    """Return the logits from whatever a network has returned.

    Args:
        answer: A tensor, or a mapping, tuple, list or dataclass with several outputs.
        place: The place of the logits among several outputs; by default ``logits``, or else the first.

    Raises:
        TypeError: there are none.
    """
    if isinstance(answer, Tensor):
        return answer
    if not (several := answers_in(answer)):
        raise TypeError(f"a network must return logits (B, num_classes), not a {type(answer).__name__}")
    where = place if place in several else "logits" if "logits" in several else next(iter(several))
    logits: Tensor = several[where]
    return logits


def answers_in(answer: Any) -> dict[str | int, Any]:
    """Return the outputs of a network by name or number; nothing if it has returned a single one."""
    if isinstance(answer, Mapping):
        return dict(answer)
    if isinstance(answer, tuple) and hasattr(answer, "_fields"):
        return dict(zip(answer._fields, answer, strict=True))
    if isinstance(answer, list | tuple):
        return dict(enumerate(answer))
    if is_dataclass(answer) and not isinstance(answer, type):
        return {field.name: getattr(answer, field.name) for field in fields(answer)}
    return {}
