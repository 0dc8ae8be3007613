"""A network that does not stand everything that is done with networks here: what it does not stand is kept away from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from dfnas_ray.surroundings import random_states, set_random_states, torch_settings_kept

Place = str | int | None
"""Where an answer is among several: its name or its number; None for an answer that stands alone."""


class Needs(NamedTuple):
    """What a network was found to need.

    Attributes:
        inputs: Inputs of its own: it changes them.
        layout: (B, C, H, W) in memory as it is written, such as one that flattens with ``view``.
        float32: Nothing less precise.
        buffers: Its buffers as they were: it changes them in evaluation mode, too.
        settings: Torch's global settings put back: it changes them.
        random_states: The global random states put back: it seeds them.
        answers: Answers that are taken away: it writes the next one over the last.
        place: Where its logits are among several answers.
    """

    inputs: bool = False
    layout: bool = False
    float32: bool = False
    buffers: bool = False
    settings: bool = False
    random_states: bool = False
    answers: bool = False
    place: Place = None


class GuardedNetwork(nn.Module):
    """Gives a network inputs of its own, and leaves out what it was found not to stand.

    Args:
        model: Maps (B, C, H, W) to logits, or to several answers.
        needs: What it was found to need.
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
        with (
            torch_settings_kept() if needs.settings else nullcontext(),
            torch.autocast(x.device.type, enabled=False) if needs.float32 else nullcontext(),
        ):
            x = x.float() if needs.float32 else x
            logits = logits_of(self._with_own_buffers(x) if needs.buffers else self.model(x), needs.place)
        if states is not None:
            set_random_states(states)
        return logits.clone() if needs.answers else logits

    def _with_own_buffers(self, x: Tensor) -> Any:
        """Call the network with copies of its buffers; one in training keeps what it makes of them."""
        if self.training:
            return self.model(x)
        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        return torch.func.functional_call(self.model, buffers, (x,))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move or convert it, also as a part of another module, and keep its weights' layout."""
        super()._apply(fn, recurse)
        if self.needs.layout:
            for tensor in (*self.parameters(), *self.buffers()):
                tensor.data = tensor.data.contiguous()
        return self


def logits_of(answer: Any, place: Place = None) -> Tensor:
    """Return the logits of whatever a network has answered.

    Args:
        answer: A tensor, or a mapping, tuple, list or dataclass with several.
        place: Where the logits are among several; by default under ``logits``, or at the first place.

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
    """Return what a network has answered, by name or number; nothing if that is one thing alone."""
    if isinstance(answer, Mapping):
        return dict(answer)
    if isinstance(answer, tuple) and hasattr(answer, "_fields"):
        return dict(zip(answer._fields, answer, strict=True))
    if isinstance(answer, list | tuple):
        return dict(enumerate(answer))
    if is_dataclass(answer) and not isinstance(answer, type):
        return {field.name: getattr(answer, field.name) for field in fields(answer)}
    return {}
