"""Searching with several processes that each see a part of every batch."""

from __future__ import annotations

from collections.abc import Iterable

import torch.distributed as dist
from torch import nn


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average the gradients over all processes of the default group, as `SearchProblem.average_gradients` asks.

    Parameters without a gradient are left out; every process must have the same ones, which it has when all draw the
    same paths. BatchNorm statistics stay those of each process's own part.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    size = dist.get_world_size()
    pending = [dist.all_reduce(gradient, async_op=True) for gradient in gradients]
    for work in pending:
        work.wait()
    for gradient in gradients:
        gradient.div_(size)
