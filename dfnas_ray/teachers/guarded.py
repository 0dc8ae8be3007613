"""A network that does not stand everything that is done with networks here: what it does not stand is kept away from it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Self

import torch
from torch import Tensor, nn


class GuardedNetwork(nn.Module):
    """Gives a network inputs of its own, and leaves out what it was found not to stand.

    Args:
        model: Maps (B, C, H, W) to logits.
        keeps_layout: Whether it needs (B, C, H, W) in memory as it is written, such as one that flattens with ``view``.
        keeps_precision: Whether it computes in float32 alone.
    """

    def __init__(self, model: nn.Module, keeps_layout: bool = False, keeps_precision: bool = False):
        super().__init__()
        self.model = model
        self.keeps_layout, self.keeps_precision = keeps_layout, keeps_precision

    def forward(self, x: Tensor) -> Tensor:
        """Map a copy of (B, C, H, W) to logits."""
        x = x.clone(memory_format=torch.contiguous_format if self.keeps_layout else torch.preserve_format)
        in_float32 = torch.autocast(x.device.type, enabled=False) if self.keeps_precision else nullcontext()
        with in_float32:
            logits: Tensor = self.model(x.float() if self.keeps_precision else x)
        return logits

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move or convert it, also as a part of another module, and keep its weights' layout."""
        super()._apply(fn, recurse)
        if self.keeps_layout:
            for tensor in (*self.parameters(), *self.buffers()):
                tensor.data = tensor.data.contiguous()
        return self
